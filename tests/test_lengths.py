"""Lengths with units in a config: epochs, steps, and shares of the run."""

import json
import math

import jax.numpy as jnp
import ml_collections  # type: ignore[import-untyped]
import numpy as np
import omegaconf
import pytest
from hypothesis import given
from hypothesis import strategies as st

import brainsched
from brainsched import from_config

WARMUP_COSINE = {"class": "WarmupCosineSchedule", "base_lr": 0.1}


class RampLR(brainsched.LRScheduler):
    """One whose length may lie between updates."""

    def __init__(self, base_lr=1e-3, ramp: float = 9, last_epoch=0):
        self.ramp = ramp
        super().__init__(base_lr, last_epoch)

    def formula(self, epoch, base_lrs, xp):
        return base_lrs * xp.minimum(epoch * (1 / self.ramp), 1.0)


def ramp(text, **units):
    return from_config({"class": "RampLR", "ramp": text}, **units).config["ramp"]


def last_epoch(text, **units):
    """Return a length that must be whole."""
    config = {"class": "RampLR", "last_epoch": text}
    return from_config(config, **units).config["last_epoch"]


def warmup_steps(text, **units):
    config = {"class": "WarmupScheduler", "base_lr": 0.1, "warmup_epochs": text}
    return from_config(config, **units).config["warmup_epochs"]


@pytest.mark.parametrize(
    ("text", "units", "by_hand"),
    [
        ("5ep", {}, 5),
        ("5ep", {"epochs": 90}, 5),
        ("5ep", {"steps_per_epoch": 391}, 1955),
        ("0.5ep", {"steps_per_epoch": 100}, 50),
        ("300st", {"steps_per_epoch": 391}, 300),
        ("300st", {"samples_per_step": 128}, 300),
        ("0.1run", {"epochs": 90}, 9),
        ("0.1run", {"epochs": 90, "steps_per_epoch": 391}, 3519),
        ("0.03run", {"epochs": 3, "steps_per_epoch": 391}, 35),  # 35.19
        ("1run", {"epochs": 90, "steps_per_epoch": 391}, 35190),
        ("375000000tok", {"tokens_per_step": 4_000_000}, 94),  # 93.75
        ("8000000tok", {"tokens_per_step": 4_000_000, "steps_per_epoch": 9}, 2),
        ("2560sp", {"samples_per_step": 256}, 10),
        ("0ep", {}, 0),
        (7, {"epochs": 90, "steps_per_epoch": 391}, 7),  # a plain integer is what it is
    ],
)
def test_a_length_becomes_a_plain_integer_in_the_unit_that_is_stepped(text, units, by_hand):
    for length in (warmup_steps, last_epoch):
        assert length(text, **units) == by_hand
        assert type(length(text, **units)) is int


@pytest.mark.parametrize(
    ("text", "units", "exact", "whole"),
    [
        ("2.4ep", {"steps_per_epoch": 1251}, 3002.4, 3002),
        ("2.5ep", {"steps_per_epoch": 391}, 977.5, 978),
        ("0.3ep", {"steps_per_epoch": 10}, 3, 3),  # 0.3 * 10 is 3 in decimals alone
        ("0.03run", {"epochs": 3, "steps_per_epoch": 391}, 35, 35),
    ],
)
def test_a_length_in_epochs_is_exact_where_it_may_lie_between_updates(text, units, exact, whole):
    assert ramp(text, **units) == exact
    assert last_epoch(text, **units) == whole


@pytest.mark.parametrize(
    ("text", "units", "epochs"),
    [
        ("2.4ep", {}, 2.4),
        ("0.1run", {"epochs": 93}, 9.3),
    ],
)
def test_a_length_may_lie_between_epochs(text, units, epochs):
    assert ramp(text, **units) == epochs


def test_the_145th_period_of_2_4_epochs_begins_at_the_update_that_it_should():
    """By hand: 145 * 2.4 * 1,251 = 435,348; a period rounded to 3,002 would be there 58 early."""
    assert 145 * ramp("2.4ep", steps_per_epoch=1251) == 435_348


@given(st.decimals(0, 1, places=3), st.integers(1, 400), st.integers(1, 5000))
def test_a_share_of_the_run_is_off_by_half_an_update_at_most(share, epochs, steps_per_epoch):
    found = warmup_steps(f"{share}run", epochs=epochs, steps_per_epoch=steps_per_epoch)
    thousandths = int(share * 1000) * epochs * steps_per_epoch
    assert abs(1000 * found - thousandths) <= 500


@pytest.mark.parametrize(
    ("text", "units", "message"),
    [
        ("300st", {}, r"^last_epoch is '300st', which needs .*steps_per_epoch=\.\.\.\)"),
        ("0.1run", {}, r"^last_epoch is '0.1run', which needs .*config, epochs=\.\.\.\)"),
        ("0.1run", {"steps_per_epoch": 9}, r"which needs .*, epochs="),
        ("5ep", {"tokens_per_step": 9}, r"'5ep', which needs .* steps_per_epoch="),
        ("5tok", {"steps_per_epoch": 9}, r"'5tok', which needs .* tokens_per_step="),
        ("5sp", {"steps_per_epoch": 9}, r"'5sp', which needs .* samples_per_step="),
        ("0.1run", {"epochs": 93}, r"^last_epoch must be an integer, got 9.3"),
        ("2.5ep", {"epochs": 90}, r"^last_epoch must be an integer, got 2.5"),
    ],
)
def test_what_cannot_be_resolved_says_what_is_missing(text, units, message):
    with pytest.raises(ValueError, match=message):
        last_epoch(text, **units)


@pytest.mark.parametrize("text", ["10%", "5epochs", "5e", "100k", "1mtok", "5Ep"])
def test_a_unit_that_is_not_known_is_named_with_those_that_are(text):
    unit = text.lstrip("0123456789")
    message = rf"warmup_epochs is '{text}', and '{unit}' is not a unit: .* ep, st, run, tok, sp$"
    with pytest.raises(ValueError, match=message):
        warmup_steps(text, epochs=90, steps_per_epoch=391)


@pytest.mark.parametrize("text", ["0.1", "5", "5 ep", "-5ep", "ep", "1e3st", "1e-3", ""])
def test_nothing_else_means_a_length(text):
    with pytest.raises(TypeError, match=f"warmup_epochs must be .*, got '{text}'"):
        warmup_steps(text, epochs=90, steps_per_epoch=391)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"base_lr": "0.1run"}, "base_lr must be .* got '0.1run'"),
        ({"eta_min": "1ep"}, "eta_min must be .* got '1ep'"),
    ],
)
def test_a_rate_has_no_length(changed, message):
    config = {**WARMUP_COSINE, "warmup_steps": "1ep", "total_steps": "9ep", **changed}
    with pytest.raises(TypeError, match=message):
        from_config(config, epochs=10)


@pytest.mark.parametrize("argument", ["epochs", "steps_per_epoch"])
def test_what_is_multiplied_into_steps_has_no_unit(argument):
    config = {"class": "OneCycleLR", "epochs": 5, "steps_per_epoch": 9, argument: "5ep"}
    with pytest.raises(TypeError, match=f"{argument} must be a number, got '5ep'"):
        from_config(config, steps_per_epoch=9)


@pytest.mark.parametrize(
    ("name", "argument"), [("WSD", "cycles"), ("CosineAnnealingWarmRestarts", "T_mult")]
)
def test_a_number_of_times_has_no_unit(name, argument):
    with pytest.raises(TypeError, match=f"{argument} must be a number, got '2ep'"):
        from_config({"class": name, argument: "2ep"}, steps_per_epoch=9)


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"epochs": 2.5}, "epochs must be an integer, got 2.5"),
        ({"steps_per_epoch": -1}, "steps_per_epoch must be at least 1, got -1"),
        ({"steps_per_epoch": "9"}, "steps_per_epoch must be a number, got '9'"),
        ({"tokens_per_step": 0}, "tokens_per_step must be at least 1, got 0"),
        ({"samples_per_step": True}, "samples_per_step must be a number, got True"),
    ],
)
def test_bad_units_are_refused(units, message):
    with pytest.raises((TypeError, ValueError), match=message):
        from_config(WARMUP_COSINE, **units)


PLAN = {
    "class": "SequentialLR",
    "schedulers": [
        {"class": "WarmupScheduler", "base_lr": 0.1, "warmup_epochs": "0.05run"},
        {"class": "MultiStepLR", "base_lr": 0.1, "milestones": ["30ep", "700st", "0.8run"]},
    ],
    "milestones": ["0.05run"],
}


@pytest.mark.parametrize("form", [dict, ml_collections.ConfigDict, omegaconf.OmegaConf.create])
def test_the_resolved_config_is_what_is_recorded(form):
    scheduler = from_config(form(PLAN), epochs=100, steps_per_epoch=10)
    config = scheduler.config
    assert config["milestones"] == [50]
    assert config["schedulers"][0]["warmup_epochs"] == 50
    assert config["schedulers"][1]["milestones"] == [300, 700, 800]
    assert scheduler.state_dict()["config"] == config
    again = from_config(json.loads(json.dumps(config)))  # nothing is left to resolve
    assert again.config == config
    epochs = range(0, 1000, 7)
    np.testing.assert_array_equal(again.lr_at(epochs), scheduler.lr_at(epochs))


def test_the_place_of_a_length_is_named():
    with pytest.raises(ValueError, match=r"^schedulers\[1\]\.milestones\[1\] is '700st', which"):
        from_config(PLAN, epochs=100)


@pytest.mark.parametrize("key", ["class", "type"])
@pytest.mark.parametrize("steps_per_epoch", [None, 10])
def test_the_parts_of_what_is_stepped_per_update_are_in_epochs(steps_per_epoch, key):
    """With its own ``steps_per_epoch``, which says it, or with the caller's."""
    own = {} if steps_per_epoch else {"steps_per_epoch": 10}
    cosine = {**WARMUP_COSINE, "warmup_steps": "5ep", "total_steps": "300st"}
    stretched = {key: "PerUpdate", "scheduler": cosine, "last_epoch": "2ep", **own}
    config = {
        "class": "SequentialLR",
        "schedulers": [stretched, {"class": "ConstantLR", "base_lr": 0.001, "total_iters": "1ep"}],
        "milestones": ["0.9run"],
    }
    found = from_config(config, epochs=40, steps_per_epoch=steps_per_epoch).config
    assert found["milestones"] == [360]
    assert found["schedulers"][1]["total_iters"] == 10
    part = found["schedulers"][0]
    assert (part["steps_per_epoch"], part["last_epoch"]) == (10, 20)
    assert part["scheduler"]["warmup_steps"] == 5
    assert part["scheduler"]["total_steps"] == 30


def test_two_numbers_of_steps_per_epoch_are_refused():
    cosine = {**WARMUP_COSINE, "warmup_steps": "5ep", "total_steps": "9ep"}
    config = {"class": "PerUpdate", "scheduler": cosine, "steps_per_epoch": 10}
    with pytest.raises(ValueError, match=r"steps_per_epoch is \[10\] in the config, got 11"):
        from_config(config, steps_per_epoch=11)


def test_a_length_beside_two_numbers_of_steps_per_epoch_is_neither():
    part = {"class": "StepLR", "base_lr": 0.1, "step_size": 2}
    parts = [{"class": "PerUpdate", "scheduler": part, "steps_per_epoch": n} for n in (3, 4)]
    config = {"class": "SequentialLR", "schedulers": parts, "milestones": ["5ep"]}
    with pytest.raises(
        ValueError, match=r"milestones\[0\] is '5ep', which needs .*steps_per_epoch"
    ):
        from_config(config)
    assert from_config({**config, "milestones": ["5st"]}).config["milestones"] == [5]


def test_a_warmup_ratio_is_a_share_of_the_run():
    """As of transformers' ``warmup_ratio``, which takes the next whole step."""
    steps = 3 * 391
    config = {**WARMUP_COSINE, "warmup_steps": "0.06run", "total_steps": "1run"}
    scheduler = from_config(config, epochs=3, steps_per_epoch=391)
    assert abs(scheduler.config["warmup_steps"] - math.ceil(0.06 * steps)) <= 1
    assert scheduler.config["total_steps"] == steps


def test_an_argument_of_a_users_class_is_a_length_by_its_annotation():
    class SlopeLR(brainsched.LRScheduler):
        def __init__(
            self, base_lr=1e-3, ramp=9, until=9.0, name: str = "", mode="1x", last_epoch=0
        ):
            self.ramp, self.until, self.name, self.mode = ramp, until, name, mode
            super().__init__(base_lr, last_epoch)

        def formula(self, epoch, base_lrs, xp):
            return base_lrs * xp.minimum(epoch * (1 / self.ramp), 1.0)

    config = {"class": "SlopeLR", "base_lr": 0.5, "ramp": "4ep", "name": "4ep", "mode": "2x"}
    config["until"] = "2.25ep"
    scheduler = from_config(config, steps_per_epoch=2)
    assert scheduler.lr_at(4).item() == 0.25
    assert scheduler.config["until"] == 4.5
    assert (scheduler.config["name"], scheduler.config["mode"]) == ("4ep", "2x")
    assert from_config({**config, "base_lr": jnp.float32(0.5)}, steps_per_epoch=1).lr_at(2) == 0.25
