"""state_dict, config, pickle and deepcopy of a scheduler alone, and the ways back."""

import copy
import inspect
import json
import math
import pickle
from typing import Any

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import brainsched
from brainsched import PiecewiseConstantSchedule

STAGES: dict[str, Any] = {"base_lr": 0.1, "boundaries": [3, 5], "values": [1.0, 0.1, 0.01]}


def at(epoch, **changed):
    scheduler = PiecewiseConstantSchedule(**STAGES | changed)
    scheduler.step(epoch)
    return scheduler


def test_state_dict_holds_the_position_and_the_rates_in_plain_numpy():
    scheduler = at(4)
    scheduler.apply(lambda rate: 0.5)
    state = scheduler.state_dict()
    assert state["config"] == {
        "class": "PiecewiseConstantSchedule",
        "base_lr": 0.1,
        "boundaries": [3, 5],
        "values": [1.0, 0.1, 0.01],
        "last_epoch": 0,
    }
    assert state["last_epoch"] == 4
    assert state["base_lrs"] == [0.1]
    assert state["current_lrs"] == [0.5]
    assert state["scheduled_lrs"] == [np.float32(0.01)]
    for leaf in [state["last_epoch"], *state["base_lrs"], *state["current_lrs"]]:
        assert type(leaf) is np.ndarray
        assert leaf.shape == ()


def test_a_plain_state_dict_is_the_same_in_json_types():
    scheduler = at(4)
    scheduler.apply(lambda rate: rate * 0.3)
    applied = float(np.float32(0.01) * np.float32(0.3))
    state = scheduler.state_dict(plain=True)
    assert json.loads(json.dumps(state, allow_nan=False)) == state
    numbers = {key: value for key, value in state.items() if key != "config"}
    assert repr(numbers) == (
        "{'last_epoch': 4, 'base_lrs': [0.1], "
        f"'current_lrs': [{applied}], 'scheduled_lrs': [{float(np.float32(0.01))}]}}"
    )
    assert state["config"] == scheduler.config


def test_a_plain_state_dict_holds_the_memory_of_a_plateau_too():
    scheduler = brainsched.ReduceLROnPlateau(0.5, factor=0.5, patience=1)
    assert scheduler.state_dict(plain=True)["best"] == math.inf
    for loss in [3.0, 2.0, 2.0, 2.0, 2.0]:
        scheduler.step(loss)
    state = scheduler.state_dict(plain=True)
    assert json.loads(json.dumps(state, allow_nan=False)) == state
    assert [type(state[name]) for name in ("best", "reductions")] == [float, int]
    restored = brainsched.ReduceLROnPlateau(0.5, factor=0.5, patience=1)
    restored.load_state_dict(state)
    assert restored.get_last_lr() == [0.25]
    restored.step(2.0)
    assert restored.get_last_lr() == [0.125]


@pytest.mark.parametrize(
    "scheduler",
    [
        brainsched.StepLR(np.float64(0.1), gamma=np.float64(0.5)),
        PiecewiseConstantSchedule([np.float64(0.1)], [3], [np.float64(1.0), np.float64(0.5)]),
        brainsched.StepLR({"body": np.float64(0.1), "head": 0.2}),
    ],
)
def test_a_plain_state_dict_has_no_scalar_of_numpy_where_one_was_given(scheduler):
    leaves = jax.tree.leaves(scheduler.state_dict(plain=True))
    assert {type(leaf) for leaf in leaves} <= {int, float, str}


def test_applied_rates_are_floats_that_json_takes():
    scheduler = PiecewiseConstantSchedule([0.1, 0.3], [3, 5], [1.0, 0.1, 0.01])
    brainstate.transform.jit(scheduler.step)(3)
    rates = [float(np.float32(0.01)), float(np.float32(0.03))]
    assert json.loads(json.dumps(scheduler.applied_rates)) == rates
    scheduler.apply(lambda rate: 0.5)
    assert scheduler.applied_rates == [0.5, 0.5]


def test_changing_a_state_dict_changes_nothing_in_the_scheduler():
    scheduler = at(4)
    state = scheduler.state_dict()
    state["last_epoch"][...] = 9
    state["base_lrs"][0][...] = 7.0
    state["current_lrs"][0][...] = 7.0
    state["config"]["values"][0] = 7.0
    state["current_lrs"].clear()
    assert scheduler.epoch == 4
    assert scheduler.base_lrs == [0.1]
    assert scheduler.get_last_lr() == scheduler.get_lr() == [np.float32(0.01)]
    assert scheduler.values == [1.0, 0.1, 0.01]


def as_python(state):
    return json.loads(json.dumps(state, default=lambda array: array.tolist()))


def as_jax(state):
    arrays = {k: jax.tree.map(jnp.asarray, v) for k, v in state.items() if k != "config"}
    return arrays | {"config": state["config"]}


def as_msgpack(state):
    def keyed(value):
        if isinstance(value, list):
            return {str(i): keyed(entry) for i, entry in enumerate(value)}
        return {k: keyed(v) for k, v in value.items()} if isinstance(value, dict) else value

    return keyed(state)


@pytest.mark.parametrize("form", [dict, as_python, as_jax, as_msgpack, pickle.dumps])
@pytest.mark.parametrize("epoch", [2, 3, 4, 5])
def test_position_and_hand_set_rate_come_back_from_every_form(form, epoch):
    scheduler = at(epoch)
    scheduler.apply(lambda rate: 0.5)
    saved = form(scheduler.state_dict())
    restored = PiecewiseConstantSchedule(**STAGES)
    restored.load_state_dict(pickle.loads(saved) if isinstance(saved, bytes) else saved)
    assert restored.epoch == epoch
    assert restored.get_last_lr() == [np.float32(0.5)]
    assert restored.get_lr() == scheduler.get_lr()
    restored.step()
    scheduler.step()
    assert restored.get_last_lr() == scheduler.get_last_lr()


def test_dict_of_the_braintools_class_gives_its_position_and_the_rates_are_computed_anew():
    theirs = braintools.optim.PiecewiseConstantSchedule(0.1, [3, 5], [0.7, 0.07, 0.007])
    for _ in range(4):
        theirs.step()
    scheduler = PiecewiseConstantSchedule(**STAGES)
    scheduler.load_state_dict(theirs.state_dict())
    assert scheduler.epoch == 4
    assert scheduler.get_last_lr() == [np.float32(0.01)]


def test_our_dict_loads_in_the_braintools_class():
    theirs = braintools.optim.PiecewiseConstantSchedule(0.1, [3, 5], [0.1, 0.01, 0.001])
    theirs.load_state_dict(at(4).state_dict())
    assert theirs.last_epoch.value == 4
    assert theirs.get_last_lr() == [np.float32(0.01)]


@pytest.mark.parametrize(
    ("changed", "named", "rate"),
    [
        ({"values": [1.0, 0.3, 0.01]}, r"values changed.*0: 0\.01 -> 0\.03", 0.03),
        ({"boundaries": [4, 5]}, r"boundaries changed.*has the same rates there", 0.01),
        ({"base_lr": 0.2}, r"base_lr changed.*group 0: 0\.01 -> 0\.02", 0.02),
        ({"base_lr": 0.2, "boundaries": [1, 2]}, "base_lr, boundaries changed", 0.002),
    ],
)
def test_a_changed_schedule_warns_with_its_names_and_holds_from_there(changed, named, rate):
    restored = PiecewiseConstantSchedule(**STAGES | changed)
    with pytest.warns(UserWarning, match=rf"{named}") as caught:
        restored.load_state_dict(at(4).state_dict())
    assert "of the code holds from epoch 4 on" in str(caught[0].message)
    assert restored.epoch == 4
    assert restored.get_last_lr() == [np.float32(rate)]


def test_the_warning_of_a_changed_schedule_shows_the_rate_that_was_applied_and_drops_it():
    scheduler = PiecewiseConstantSchedule([0.1, 0.2], [3], [1.0, 0.1])
    scheduler.step(4)
    scheduler.current_lrs.value = [0.7, 0.02]
    changed = PiecewiseConstantSchedule([0.1, 0.2], [3], [1.0, 0.5])
    with pytest.warns(UserWarning, match=r"group 0: 0\.7 -> 0\.05, group 1: 0\.02 -> 0\.1$"):
        changed.load_state_dict(as_python(scheduler.state_dict()))
    assert changed.get_last_lr() == [np.float32(0.05), np.float32(0.1)]


def decaying(factor):
    """Return a class of one name whose formula was edited between two runs."""

    class EditedLR(brainsched.LRScheduler):
        def formula(self, epoch, base_lrs, xp):
            return base_lrs * factor**epoch

    return EditedLR


def test_a_formula_that_was_edited_between_saving_and_loading_is_warned_of():
    before, after = decaying(0.5)(0.5), decaying(0.25)(0.5)
    before.step(2)
    with pytest.warns(UserWarning, match=r"its formula changed.*group 0: 0\.125 -> 0\.03125"):
        after.load_state_dict(before.state_dict())
    assert after.get_last_lr() == [0.03125]
    before.step(0)
    decaying(0.25)(0.5).load_state_dict(before.state_dict())  # where both give the same rate


def test_a_plan_that_is_only_longer_says_so_and_keeps_the_rate():
    def plan(epochs):
        return brainsched.SequentialLR(
            [brainsched.ConstantLR(0.5, 1.0), brainsched.StepLR(0.5, 1, 0.5)], [epochs]
        )

    short, longer = plan(10), plan(20)
    short.step(4)
    short.apply(lambda rate: 0.375)
    with pytest.warns(UserWarning, match="milestones changed.*has the same rates there"):
        longer.load_state_dict(short.state_dict())
    assert longer.get_last_lr() == [0.375]  # as the schedule's own rate is what it was
    longer.step(12)
    assert longer.get_last_lr() == [0.5]


def test_where_to_begin_is_no_change_of_the_schedule():
    restored = PiecewiseConstantSchedule(**STAGES, last_epoch=1)
    restored.load_state_dict(at(4).state_dict())
    assert restored.epoch == 4


class BeforeLR(brainsched.LRScheduler):
    """A schedule as an earlier version had it, without the arguments that it has now."""

    def formula(self, epoch, base_lrs, xp):
        return base_lrs * 0.5**epoch


class NowLR(brainsched.LRScheduler):
    def __init__(self, base_lr=0.5, last_epoch=0, power=1, weights=(1.0, 1.0), shape=None):
        self.power, self.weights, self.shape = power, weights, shape
        super().__init__(base_lr, last_epoch)

    def formula(self, epoch, base_lrs, xp):
        return base_lrs * 0.5 ** (self.power * epoch)


def saved_before():
    scheduler = BeforeLR(0.5)
    scheduler.step(3)
    state = scheduler.state_dict()
    state["config"]["class"] = "NowLR"
    return state


def test_an_argument_that_a_checkpoint_is_older_than_had_its_default():
    restored = NowLR(0.5)
    restored.load_state_dict(saved_before())
    assert restored.epoch == 3
    assert restored.get_last_lr() == [0.0625]


@pytest.mark.parametrize(
    ("given", "named"),
    [({"power": 2}, "power"), ({"weights": [1.0, 2.0]}, "weights"), ({"shape": "cos"}, "shape")],
)
def test_an_argument_that_a_checkpoint_is_older_than_is_named_where_it_is_given(given, named):
    with pytest.warns(UserWarning, match=rf"schedule \({named} changed\)"):
        NowLR(0.5, **given).load_state_dict(saved_before())


def test_an_argument_that_a_checkpoint_is_older_than_may_be_that_of_a_part():
    def composed(**given):
        return brainsched.SequentialLR([NowLR(0.5, **given), NowLR(0.5)], [4])

    state = composed().state_dict()
    for part in state["config"]["schedulers"]:
        part.pop("power")
    composed().load_state_dict(state)
    with pytest.warns(UserWarning, match="schedulers changed"):
        composed(power=2).load_state_dict(state)


@pytest.mark.parametrize("container", [np.asarray, jnp.asarray, list])
def test_the_same_numbers_in_another_container_are_no_change(container):
    restored = PiecewiseConstantSchedule(0.1, np.array([3, 5]), (1, 0.1, 0.01))
    state = at(4).state_dict()
    state["config"]["boundaries"] = container(state["config"]["boundaries"])
    restored.load_state_dict(state)
    assert restored.epoch == 4


def test_an_argument_without_a_form_in_a_config_is_named():
    class ChosenLR(brainsched.LRScheduler):
        def __init__(self, base_lr=0.1, chosen=None, last_epoch=0):
            self.chosen = chosen
            super().__init__(base_lr, last_epoch)

        def formula(self, epoch, base_lrs, xp):
            return base_lrs

    with pytest.raises(TypeError, match=r"chosen cannot be written in a config: \{3\}"):
        _ = ChosenLR(chosen={3}).config


@pytest.mark.filterwarnings("error")
def test_a_warning_turned_into_an_error_changes_nothing():
    scheduler = PiecewiseConstantSchedule(0.2, [3, 5])
    with pytest.raises(UserWarning, match="base_lr"):
        scheduler.load_state_dict(at(4).state_dict())
    assert scheduler.epoch == 0


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))]
)
def test_copies_keep_position_and_hand_set_rates_and_go_their_own_way(duplicate):
    scheduler = at(4)
    scheduler.apply(lambda rate: 0.5)
    other = duplicate(scheduler)
    assert other.epoch == 4
    assert other.get_last_lr() == [0.5]
    assert other.get_lr() == [np.float32(0.01)]
    other.step()
    assert (scheduler.epoch, other.epoch) == (4, 5)
    assert scheduler.get_last_lr() == [0.5]
    assert other.get_last_lr() == [np.float32(0.001)]


def test_a_position_on_the_device_survives_pickle():
    scheduler = at(2)
    brainstate.transform.jit(scheduler.step)()
    assert pickle.loads(pickle.dumps(scheduler)).epoch == 3


def test_config_is_json_and_rebuilds_the_scheduler():
    scheduler = PiecewiseConstantSchedule(
        np.array([0.1, 0.2]), range(3, 9, 3), np.array([[1, 2], [3, 4], [5, 6.5]]), last_epoch=2
    )
    config = json.loads(json.dumps(scheduler.config))
    assert config == {
        "class": "PiecewiseConstantSchedule",
        "base_lr": [0.1, 0.2],
        "boundaries": [3, 6],
        "values": [[1, 2], [3, 4], [5, 6.5]],
        "last_epoch": 2,
    }
    rebuilt = brainsched.from_config(config)
    assert rebuilt.config == config
    assert rebuilt.epoch == 2
    np.testing.assert_array_equal(rebuilt.lr_at(range(9)), scheduler.lr_at(range(9)))


def test_traced_schedule_has_no_config():
    with pytest.raises(TypeError, match="values is traced, so the scheduler has no config"):
        jax.jit(lambda v: PiecewiseConstantSchedule(0.1, [1], v).config)(jnp.ones(2))


@given(st.integers(0, 8), st.integers(0, 8), st.booleans())
def test_resumed_at_any_epoch_equals_never_stopped(stop, more, through_copy):
    straight = PiecewiseConstantSchedule(**STAGES)
    for _ in range(stop + more):
        straight.step()
    stopped = PiecewiseConstantSchedule(**STAGES)
    for _ in range(stop):
        stopped.step()
    if through_copy:
        resumed = pickle.loads(pickle.dumps(stopped))
    else:
        resumed = PiecewiseConstantSchedule(**STAGES)
        resumed.load_state_dict(stopped.state_dict())
    for _ in range(more):
        resumed.step()
    assert resumed.state_dict() == straight.state_dict()


def halving(epoch):
    return 0.5**epoch


def test_a_schedule_with_a_function_is_saved_by_the_functions_name():
    scheduler = brainsched.LambdaLR(0.5, halving)
    scheduler.step(3)
    state = scheduler.state_dict()
    assert state["config"]["lr_lambda"] == f"{__name__}:halving"
    restored = brainsched.LambdaLR(0.5, halving)
    restored.load_state_dict(state)
    assert restored.get_last_lr() == [0.0625]
    with pytest.warns(UserWarning, match="lr_lambda changed"):
        brainsched.LambdaLR(0.5, lambda epoch: 1.0).load_state_dict(state)
    rebuilt = brainsched.from_config(state["config"], import_functions=True)
    assert rebuilt.lr_at(3).item() == 0.0625


def test_a_config_that_was_rounded_to_float32_is_no_change_and_its_neighbour_is_one():
    gamma = 0.5 * (1 + 0.99 * 2**-24)  # almost half of the way to the next float32
    scheduler = brainsched.StepLR(0.5, gamma=gamma)
    state = scheduler.state_dict()
    state["config"]["gamma"] = float(np.float32(gamma))
    assert state["config"]["gamma"] == 0.5
    scheduler.load_state_dict(state)  # without a warning
    state["config"]["gamma"] = 0.5 * (1 + 2**-23)
    with pytest.warns(UserWarning, match="gamma changed"):
        brainsched.StepLR(0.5, gamma=0.5).load_state_dict(state)


def test_signature_is_the_constructors():
    theirs = inspect.signature(braintools.optim.PiecewiseConstantSchedule.__init__).parameters
    ours = inspect.signature(PiecewiseConstantSchedule).parameters
    assert {name: p.default for name, p in ours.items()} == {
        name: p.default for name, p in theirs.items() if name != "self"
    }
    assert list(ours) == list(theirs)[1:]


def test_a_rate_of_a_group_that_is_an_entry_of_base_lr_now_is_no_change():
    optimizer = braintools.optim.SGD(lr=brainsched.StepLR(0.1, 1, 0.5))
    optimizer.register_trainable_weights({"a": brainstate.ParamState(jnp.ones(2))})
    optimizer.add_param_group({"b": brainstate.ParamState(jnp.ones(2))}, lr=0.2)
    optimizer.lr.step()
    scheduler = brainsched.StepLR([0.1, 0.2], 1, 0.5)
    scheduler.load_state_dict(optimizer.lr.state_dict())  # without a warning
    assert scheduler.get_last_lr() == [np.float32(0.05), np.float32(0.1)]
