"""Schedulers from configs, whatever read them, and what a config may not do."""

import inspect
import json
import sys
from typing import Any

import jax.numpy as jnp
import ml_collections  # type: ignore[import-untyped]
import numpy as np
import omegaconf
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import brainsched
from brainsched import (
    ConstantLR,
    LambdaLR,
    PiecewiseConstantSchedule,
    SequentialLR,
    StepLR,
    from_config,
)

NESTED: dict[str, Any] = {
    "class": "SequentialLR",
    "schedulers": [
        {"class": "WarmupScheduler", "base_lr": 0.4, "warmup_epochs": 4},
        {
            "class": "ChainedScheduler",
            "schedulers": [
                {"class": "StepLR", "base_lr": 0.4, "step_size": 3, "gamma": 0.5},
                {"class": "ConstantLR", "base_lr": 1.0, "factor": 0.5, "total_iters": 2},
            ],
        },
    ],
    "milestones": [4],
}

# By hand: a rise of 0.1 an epoch, then half of 0.4 for 2 epochs, 0.4 for one and half of it
RATES = np.array([0, 0.1, 0.2, 0.3, 0.2, 0.2, 0.4, 0.2], np.float32)


def with_key(config: Any, key: str) -> Any:
    if isinstance(config, dict):
        return {key if k == "class" else k: with_key(v, key) for k, v in config.items()}
    return [with_key(entry, key) for entry in config] if isinstance(config, list) else config


def with_tuples(config: Any) -> Any:
    if isinstance(config, dict):
        return {k: with_tuples(v) for k, v in config.items()}
    return tuple(map(with_tuples, config)) if isinstance(config, list) else config


def with_interpolation(config: dict[str, Any]) -> omegaconf.DictConfig:
    made = omegaconf.OmegaConf.create({"peak": 0.4, "scheduler": config})
    made.scheduler.schedulers[0].base_lr = "${peak}"
    return made.scheduler


def with_reference(config: dict[str, Any]) -> ml_collections.ConfigDict:
    part = ml_collections.ConfigDict(config["schedulers"][0])
    part.base_lr = ml_collections.FieldReference(0.4)
    return ml_collections.ConfigDict({**config, "schedulers": [part, config["schedulers"][1]]})


@pytest.mark.parametrize(
    "form",
    [
        dict,
        with_tuples,
        ml_collections.ConfigDict,
        with_reference,
        omegaconf.OmegaConf.create,
        with_interpolation,
        lambda config: yaml.safe_load(yaml.safe_dump(config)),
        lambda config: json.loads(json.dumps(config)),
    ],
)
@pytest.mark.parametrize("key", ["class", "type"])
def test_every_config_system_gives_the_same_schedule(form, key):
    scheduler = from_config(form(with_key(NESTED, key)))
    np.testing.assert_array_equal(scheduler.lr_at(range(8))[:, 0], RATES)
    config = json.loads(json.dumps(scheduler.config))  # plain again, whatever it was
    assert config == from_config(NESTED).config
    assert "${" not in str(config)


def test_attributes_of_a_config_dict_are_read():
    config = ml_collections.ConfigDict()
    config.type = "PiecewiseConstantSchedule"
    config.boundaries = (1, 2)
    config.values = (1.0, 0.5, 0.25)
    config.base_lr = 0.5
    assert from_config(config).lr_at([0, 1, 2]).ravel().tolist() == [0.5, 0.25, 0.125]


def test_a_frozen_config_dict_has_a_part_that_is_no_entry_of_a_list():
    """One in a list, ml_collections 1.1 itself refuses."""
    part = {"type": "StepLR", "base_lr": 0.5, "step_size": 1, "gamma": 0.5}
    frozen = ml_collections.FrozenConfigDict(
        {"type": "PerUpdate", "scheduler": part, "steps_per_epoch": 2}
    )
    assert from_config(frozen).lr_at(range(4)).ravel().tolist() == [0.5, 0.5, 0.25, 0.25]


def test_schedulers_that_are_built_are_parts_too():
    parts = (StepLR(0.5), ConstantLR(1.0))
    scheduler = from_config({"class": "SequentialLR", "schedulers": parts, "milestones": [2]})
    assert isinstance(scheduler, SequentialLR)
    assert scheduler.schedulers[0].base_lr == 0.5


def test_a_type_that_is_an_argument_stays_one():
    class TypedLR(brainsched.LRScheduler):
        def __init__(self, base_lr=1e-3, type="flat", last_epoch=0):
            self.type = type
            super().__init__(base_lr, last_epoch)

        def formula(self, epoch, base_lrs, xp):
            return base_lrs

    assert from_config({"class": "TypedLR", "type": "steep"}).config["type"] == "steep"


def changed(*path: str | int, to: Any) -> dict[str, Any]:
    """Return the nested config with another value at ``path``."""
    config = json.loads(json.dumps(NESTED))
    place = config
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to
    return config


DEEP = ("schedulers", 1, "schedulers", 0)


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (
            changed("schedulers", 0, "class", to="Warmup"),
            ValueError,
            r"^schedulers\[0\]: config\['class'\] must be one of .*got 'Warmup'$",
        ),
        (
            changed(*DEEP, "step_size", to=0),
            ValueError,
            r"^schedulers\[1\]\.schedulers\[0\]: step_size must be above 0",
        ),
        (
            changed(*DEEP, "base_lr", to="1e-3"),
            TypeError,
            r"^schedulers\[1\]\.schedulers\[0\]: base_lr .* got '1e-3' \(str\): a config has text",
        ),
        (
            changed(*DEEP, "step", to=3),
            TypeError,
            r"^schedulers\[1\]\.schedulers\[0\]: .* unexpected keyword argument 'step'",
        ),
        (
            changed(*DEEP, to={"step_size": 3}),
            TypeError,
            r"^schedulers\[1\]: schedulers\[0\] must be a scheduler of brainsched, got dict$",
        ),
        (changed("milestones", to=[4, 8]), ValueError, r"^schedulers must have one entry more"),
        (changed("class", to="Sequence"), ValueError, r"^config\['class'\] must be one of"),
        (
            {"type": "Nope"},
            ValueError,
            r"^config\['type'\] must be one of .*ChainedScheduler.*; got 'Nope'",
        ),
        ({"class": ["StepLR"]}, ValueError, r"^config\['class'\] must be one of .*'StepLR'\]$"),
        ({"class": "StepLR", "type": "StepLR"}, TypeError, "unexpected keyword argument 'type'"),
        (ml_collections.ConfigDict({"class": "StepLR", "gama": 1}), TypeError, "argument 'gama'"),
        ("StepLR", TypeError, "config must be a mapping, got str"),
    ],
)
def test_an_error_says_which_part_it_is_of(config, error, message):
    with pytest.raises(error, match=message):
        from_config(config)


def halved(epoch):
    return 0.5**epoch


def test_a_function_comes_by_the_name_that_the_caller_gives_it():
    named = {"class": "LambdaLR", "base_lr": 0.5, "lr_lambda": "halved"}
    scheduler = from_config(named, functions={"halved": halved})
    assert scheduler.lr_at(2).item() == 0.125
    assert scheduler.config["lr_lambda"] == f"{__name__}:halved"
    saved = LambdaLR([0.5, 0.25], [halved, lambda epoch: 1.0 + 0 * epoch]).config
    given = dict(zip(saved["lr_lambda"], [halved, lambda epoch: 1.0 + 0 * epoch], strict=True))
    assert from_config(saved, functions=given).lr_at(2).tolist() == [0.125, 0.25]
    chained = {"type": "ChainedScheduler", "schedulers": [named]}
    assert from_config(chained, functions={"halved": halved}).lr_at(1).item() == 0.25


def test_no_module_is_imported_unless_the_caller_allows_it(tmp_path, monkeypatch):
    (tmp_path / "somebody_elses.py").write_text("def rule(epoch):\n    return 0.5 * (epoch >= 0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    part = {"class": "LambdaLR", "base_lr": 0.25, "lr_lambda": ["somebody_elses:rule"]}
    config = {"class": "ChainedScheduler", "schedulers": [part]}
    message = r"^schedulers\[0\]\.lr_lambda\[0\] names the function 'somebody_elses:rule', .*"
    with pytest.raises(ValueError, match=message + r"functions=.*import_functions=True\)$"):
        from_config(config)
    assert "somebody_elses" not in sys.modules
    assert from_config(config, import_functions=True).lr_at(3).item() == 0.125
    monkeypatch.delitem(sys.modules, "somebody_elses")


@pytest.mark.parametrize("name", ["no_such_module:rule", "json:no_such_function", "json:"])
def test_a_function_that_cannot_be_imported_is_named(name):
    config = {"class": "LambdaLR", "base_lr": 0.5, "lr_lambda": name}
    with pytest.raises((ValueError, TypeError), match="lr_lambda"):
        from_config(config, import_functions=True)


def test_a_local_function_says_how_to_give_it():
    config = LambdaLR(0.5, lambda epoch: 1.0).config
    with pytest.raises(ValueError, match=r"cannot be imported: .*functions=\{"):
        from_config(config, import_functions=True)


def test_arrays_in_a_config_stay_arrays():
    config = {"class": "PiecewiseConstantSchedule", "boundaries": [1], "values": jnp.ones(2)}
    scheduler = from_config(config)
    assert isinstance(scheduler, PiecewiseConstantSchedule)
    assert isinstance(scheduler.values, jnp.ndarray)


# A file from elsewhere: what it holds costs no more than its size, and no more than a sentence


def nested(levels: int) -> dict[str, Any]:
    config: dict[str, Any] = {"class": "StepLR", "base_lr": 0.5}
    for _ in range(levels):
        config = {"class": "ChainedScheduler", "schedulers": [config]}
    return config


def test_a_config_is_nested_at_most_64_deep():
    assert from_config(nested(31)).lr_at(0).item() == 0.5  # 62 mappings and lists around the last
    for levels in (32, 100_000):
        with pytest.raises(ValueError, match="config is nested more than 64 deep"):
            from_config(nested(levels))


def test_a_config_that_contains_itself_is_refused():
    config = yaml.safe_load("&whole {class: ChainedScheduler, schedulers: [*whole, *whole]}")
    with pytest.raises(ValueError, match="nested more than 64 deep, or contains itself"):
        from_config(config)


def test_parts_that_share_parts_are_refused_once_they_are_too_many():
    """As YAML's aliases do: these 15 lines stand for 16,383 schedulers."""
    lines = ["p0: &p0 {class: StepLR, base_lr: 0.5}"]
    for i in range(1, 14):
        shared = f"[*p{i - 1}, *p{i - 1}]"
        lines.append(f"p{i}: &p{i} {{class: ChainedScheduler, schedulers: {shared}}}")
    parts = yaml.safe_load("\n".join(lines))
    assert from_config(parts["p3"]).lr_at(0).item() == 0.5
    with pytest.raises(ValueError, match="config has more than 1,000 mappings"):
        from_config(parts["p13"])


def test_lists_that_share_lists_are_refused_once_they_are_too_long():
    numbers: list[Any] = [1.0] * 100
    for _ in range(6):
        numbers = [numbers] * 10
    with pytest.raises(ValueError, match="or 1,000,000 values"):
        from_config({"class": "PiecewiseConstantSchedule", "values": numbers})


# An expression that goes back over what it read would take hours over these digits.
DIGITS = "1" * 1_000_000


@pytest.mark.parametrize("end", ["", "x", "ep", ".", "e", "e5x"])
@pytest.mark.parametrize("argument", ["base_lr", "step_size"])
def test_a_text_of_many_digits_is_refused_in_time(argument, end):
    with pytest.raises(TypeError, match=f"{argument} must be .* got '1111") as error:
        from_config({"class": "StepLR", argument: DIGITS + end})
    assert len(str(error.value)) < 500


def test_a_text_of_many_digits_in_a_checkpoint_is_refused_in_time():
    scheduler = StepLR(0.5)
    for key, value in (("current_lrs", [DIGITS]), ("last_epoch", DIGITS)):
        with pytest.raises(TypeError, match=rf"state_dict\['{key}'\].* got '1111") as error:
            scheduler.load_state_dict(scheduler.state_dict() | {key: value})
        assert len(str(error.value)) < 500


@pytest.mark.parametrize("number", [10**400, -(10**400)])
@pytest.mark.parametrize(
    ("cls", "argument"),
    [("StepLR", "base_lr"), ("StepLR", "gamma"), ("StepLR", "last_epoch"), ("CyclicLR", "max_lr")],
)
def test_an_integer_that_no_float_holds_is_a_bad_value(cls, argument, number):
    with pytest.raises(ValueError, match=rf"{argument} must .* got -?1000.*0"):
        from_config({"class": cls, argument: number})


def test_an_integer_that_no_float_holds_is_a_bad_value_in_a_checkpoint():
    scheduler = StepLR(0.5)
    saved = scheduler.state_dict()
    with pytest.raises(ValueError, match=r"state_dict\['current_lrs'\]\[0\] must be at most"):
        scheduler.load_state_dict(saved | {"current_lrs": [10**400]})
    changed = saved["config"] | {"gamma": 10**400}
    with pytest.warns(UserWarning, match="gamma"):
        scheduler.load_state_dict(saved | {"config": changed})


CLASSES = [name for name in brainsched.schedules.__all__ if name[0].isupper()]
ARGUMENTS = {
    name: [*inspect.signature(getattr(brainsched, name)).parameters, "type"] for name in CLASSES
}
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["5ep", "0.1run", "1x", "cos", "json:loads", "StepLR", "1e-3", "", 10**400])
)


def configs(values):
    def of(name):
        return st.builds(
            lambda arguments: {"class": name, **arguments},
            st.dictionaries(st.sampled_from(ARGUMENTS[name]), values, max_size=4),
        )

    return st.sampled_from(CLASSES).flatmap(of)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=200)
@given(configs(st.recursive(LEAVES, lambda v: st.lists(v, max_size=3) | configs(v), max_leaves=8)))
def test_whatever_json_holds_is_a_scheduler_or_a_bad_value(config):
    try:
        scheduler = from_config(config, epochs=10, steps_per_epoch=7)
    except (TypeError, ValueError):
        return
    assert from_config(scheduler.config).config == scheduler.config


# Two classes of one name


def plan_class(module: str, rate: float) -> type[brainsched.LRScheduler]:
    class PlanOfTwoModules(brainsched.LRScheduler):
        def __init__(self, base_lr=1.0, last_epoch=0):
            super().__init__(base_lr, last_epoch)

        def formula(self, epoch, base_lrs, xp):
            return rate * base_lrs

        __module__ = module
        __qualname__ = "PlanOfTwoModules"

    return PlanOfTwoModules


def test_a_name_that_two_modules_gave_is_refused_and_both_are_named():
    plan_class("first", 0.5)
    assert from_config({"class": "PlanOfTwoModules"}).lr_at(0).item() == 0.5
    plan_class("first", 0.25)  # as when a notebook's cell is run again
    assert from_config({"class": "PlanOfTwoModules"}).lr_at(0).item() == 0.25
    plan_class("second", 0.125)
    message = r"'PlanOfTwoModules' .* write first\.PlanOfTwoModules or second\.PlanOfTwoModules$"
    with pytest.raises(ValueError, match=message):
        from_config({"class": "PlanOfTwoModules"})
    for module, rate in (("first", 0.25), ("second", 0.125)):
        assert from_config({"class": f"{module}.PlanOfTwoModules"}).lr_at(0).item() == rate
