"""The link between a scheduler and an optimizer, as users come upon it."""

import copy
import functools
import pathlib
import pickle
import re
import sys
import textwrap

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from brainstate.transform import grad, jit, vmap
from test_every_optimizer import FOLLOWERS, OWN_RATE, build

import brainsched
from brainsched import (
    ConstantLR,
    CosineAnnealingLR,
    LRScheduler,
    PiecewiseConstantSchedule,
    SequentialLR,
    StepLR,
)

# Which algorithm an added group gets is measured in test_every_optimizer.py; here, its rate is.
pytestmark = pytest.mark.filterwarnings("ignore:braintools 0.3.0 trains every group:UserWarning")


def parameter(size=2):
    return brainstate.ParamState(jnp.zeros(size))


def sgd(lr, keys=("a",)):
    optimizer = braintools.optim.SGD(lr=lr)
    optimizer.register_trainable_weights({key: parameter() for key in keys})
    return optimizer


def moved(optimizer):
    """Return how far one step under a gradient of 1 moves the parameters of the first group."""
    states = optimizer.param_groups[0]["params"]
    before = {key: np.asarray(state.value, float) for key, state in states.items()}
    optimizer.step({key: jnp.ones(2) for key in states})
    (distance,) = {float((before[k] - np.asarray(s.value, float))[0]) for k, s in states.items()}
    return pytest.approx(distance, rel=1e-6)


# A model as it comes


class Network(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [brainstate.nn.Linear(3, 3) for _ in range(2)]
        self.gain = brainstate.ParamState(jnp.ones(3))
        self.head = brainstate.nn.Linear(3, 1)

    def update(self, x):
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return self.head(x * self.gain.value)


@pytest.mark.parametrize("compiled", [False, True], ids=["host", "jit"])
@pytest.mark.parametrize("name", [*FOLLOWERS, *OWN_RATE])
@pytest.mark.filterwarnings("ignore:.*does not read its learning rate:UserWarning")
def test_groups_from_the_states_of_a_model_run_at_their_rates_and_frozen_ones_stay(name, compiled):
    brainstate.random.seed(0)
    model = Network()
    states = model.states(brainstate.ParamState)
    assert ("layers", 0, "weight") in states
    parts = {part: {k: s for k, s in states.items() if k[0] == part} for part in ("layers", "head")}
    rest = {key: state for key, state in states.items() if key[0] == "gain"}

    scheduler = PiecewiseConstantSchedule(0.01, [2], [[1.0, 0.0, 1.0], [1.0, 0.5, 1.0]])
    optimizer = build(name, scheduler)
    optimizer.register_trainable_weights(rest)
    optimizer.add_param_group(parts["layers"])
    optimizer.add_param_group(parts["head"], lr=0.02)

    def train_step():
        optimizer.step(grad(lambda: (model(jnp.ones((4, 3))) ** 2).sum(), states)())

    train_step = jit(train_step) if compiled else train_step

    def movements():
        before = {key: jax.tree.map(np.asarray, state.value) for key, state in states.items()}
        train_step()
        scheduler.step()
        return {
            key: np.concatenate(
                [
                    np.ravel(np.asarray(new, float) - np.asarray(old, float))
                    for old, new in zip(
                        jax.tree.leaves(before[key]), jax.tree.leaves(state.value), strict=True
                    )
                ]
            )
            for key, state in states.items()
        }

    first, second, third = movements(), movements(), movements()
    # Adam's first step is the rate, whatever the gradient.
    head = np.concatenate([first[key] for key in parts["head"]])
    np.testing.assert_allclose(np.abs(head), 0.02, rtol=1e-3)
    for step in (first, second):
        assert all((step[key] == 0.0).all() for key in parts["layers"])
    layers = np.concatenate([third[key] for key in parts["layers"]])
    assert 0 < np.abs(layers).max() < 0.006


def test_the_moments_of_a_tuple_keyed_group_are_saved_and_restored():
    def trained():
        scheduler = StepLR(0.125, 100)
        optimizer = sgd(scheduler, [("a", "weight")])
        added = {("b", "weight"): parameter()}
        optimizer.add_param_group(added)
        return optimizer, added[("b", "weight")]

    gradients = {("a", "weight"): jnp.ones(2), ("b", "weight"): jnp.array([1.0, 3.0])}
    optimizer, straight = trained()
    for _ in range(3):
        optimizer.step(gradients)
    first, weight = trained()
    first.step(gradients)
    second, resumed = trained()
    second.load_state_dict(first.state_dict())
    resumed.value = weight.value
    for _ in range(2):
        second.step(gradients)
    np.testing.assert_array_equal(resumed.value, straight.value)


BAD_GROUPS: dict[str, tuple[dict, str]] = {
    "another form of key": ({"b": None, 3: None}, "cannot be sorted"),
    "nested": ({"b": {"weight": None}}, r"params\['b'\] is a dictionary .*flat dictionaries"),
    "a key that is taken": ({"a": None}, r"params\['a'\] has the key of another parameter, of "),
    "nothing": ({}, "params has no parameter"),
}


@pytest.mark.parametrize("case", BAD_GROUPS)
def test_a_group_that_could_not_be_trained_at_its_rate_is_refused_and_nothing_is_lost(case):
    content, message = BAD_GROUPS[case]
    params = {
        key: parameter() if value is None else dict.fromkeys(value, parameter())
        for key, value in content.items()
    }
    optimizer = sgd(StepLR(0.5))
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group(params)
    assert len(optimizer.param_groups) == 1
    assert moved(optimizer) == 0.5
    optimizer.add_param_group({"b": parameter()}, lr=0.25)
    assert optimizer.get_last_lr() == [0.5, 0.25]


def test_a_parameter_in_two_groups_is_refused_with_the_way_to_select_the_others():
    optimizer = sgd(StepLR(0.5), ["a", "b"])
    shared = optimizer.param_groups[0]["params"]["b"]
    for key in ("b", "other"):
        with pytest.raises(ValueError, match="is in another param group already: register the oth"):
            optimizer.add_param_group({key: shared})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize("params", [[None], None, "head", parameter()])
def test_params_that_are_no_dictionary_are_refused(params):
    with pytest.raises(TypeError, match="params must be a dictionary of States"):
        sgd(StepLR(0.5)).add_param_group(params)


def test_a_group_after_nested_weights_is_refused():
    optimizer = braintools.optim.SGD(lr=StepLR(0.5))
    optimizer.register_trainable_weights({"layer": {"weight": parameter()}})
    with pytest.raises(ValueError, match="the registered 'layer' is a dictionary"):
        optimizer.add_param_group({"b": parameter()})


def optimizer_with_a_group_of_its_own(params):
    optimizer = braintools.optim.SGD(lr=0.25)
    optimizer.register_trainable_weights({("a", "weight"): parameter()})
    optimizer.add_param_group(params, lr=0.125)
    return optimizer


def test_a_tuple_keyed_group_of_an_optimizer_with_a_plain_rate_is_scheduled_too():
    added = {("b", "weight"): parameter()}
    optimizer = optimizer_with_a_group_of_its_own(added)
    scheduler = StepLR(0.5, 1, 0.5)
    scheduler.attach_optimizer(optimizer)
    gradients = {("a", "weight"): jnp.ones(2), ("b", "weight"): jnp.full(2, 1000.0)}
    optimizer.step(gradients)
    np.testing.assert_allclose(added["b", "weight"].value, -0.125, rtol=1e-5)
    scheduler.step()
    optimizer.step(gradients)
    np.testing.assert_allclose(added["b", "weight"].value, -0.1875, rtol=1e-5)


def test_a_nested_group_of_an_optimizer_with_a_plain_rate_is_refused_and_nothing_is_lost():
    optimizer = optimizer_with_a_group_of_its_own({"layer": {"weight": parameter()}})
    scheduler = StepLR(0.5)
    with pytest.raises(ValueError, match=r"'layer.weight' of param group 1 was added in a nested"):
        scheduler.attach_optimizer(optimizer)
    assert scheduler.optimizer is None
    assert optimizer.current_lr == 0.25


def test_weights_that_are_registered_once_more_change_nothing():
    states = {"a": parameter(), "b": parameter()}
    optimizer = braintools.optim.Adam(lr=StepLR(0.5))
    optimizer.register_trainable_weights({"a": states["a"]})
    optimizer.add_param_group({"b": states["b"]}, lr=0.25)
    optimizer.register_trainable_weights(states)  # as braintools' Trainer does
    optimizer.step({key: jnp.ones(2) for key in states})
    np.testing.assert_allclose(states["a"].value, -0.5, rtol=1e-5)
    np.testing.assert_allclose(states["b"].value, -0.25, rtol=1e-5)


def test_weights_that_are_registered_twice_all_belong_to_the_first_group():
    optimizer = sgd(StepLR(0.5))
    optimizer.register_trainable_weights({"b": parameter()})
    assert moved(optimizer) == 0.5
    optimizer.add_param_group({"c": parameter()})
    with pytest.raises(ValueError, match="register_trainable_weights comes before add_param_group"):
        optimizer.register_trainable_weights({"d": parameter()})


class OneGroupLR(LRScheduler):
    """A formula that fails for a second group."""

    def formula(self, epoch, base_lrs, xp):
        if len(base_lrs) > 1:
            raise ZeroDivisionError("mine")
        return base_lrs + 0 * epoch


def test_an_error_of_the_formula_when_a_group_is_added_leaves_all_as_it_was():
    optimizer = sgd(OneGroupLR(0.5))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="mine"):
            optimizer.add_param_group({"b": parameter()})
    assert len(optimizer.param_groups) == 1
    assert moved(optimizer) == 0.5
    optimizer.lr.step()
    assert moved(optimizer) == 0.5


def test_an_error_of_braintools_when_a_group_is_added_leaves_all_as_it_was():
    optimizer = sgd(StepLR(0.5))
    with pytest.raises(TypeError):
        optimizer.add_param_group({"b": parameter()}, weight_decay="much")
    assert len(optimizer.param_groups) == 1
    assert len(optimizer.lr.current_lrs.value) == 1
    assert moved(optimizer) == 0.5
    optimizer.add_param_group({"b": parameter()})
    optimizer.step({"a": jnp.ones(2), "b": jnp.ones(2)})


# One scheduler, one optimizer


def test_an_optimizer_that_loses_its_scheduler_keeps_its_rates_and_takes_another():
    scheduler = StepLR(0.5, 1, 0.5)
    first = sgd(scheduler)
    with pytest.warns(UserWarning, match="moves to another optimizer.*SGD, keeps the rates"):
        second = sgd(scheduler)
    scheduler.step()
    assert (moved(first), moved(second)) == (0.5, 0.25)
    ConstantLR(0.875, 1.0).attach_optimizer(first)
    assert (moved(first), moved(second)) == (0.875, 0.25)
    second.add_param_group({"b": parameter()})
    assert second.get_last_lr() == [0.25, 0.25]
    first.load_state_dict(first.state_dict())
    scheduler.step()
    assert moved(first) == 0.875
    assert second.get_last_lr() == [0.125, 0.125]


@pytest.mark.parametrize("times", [1, 3])
def test_a_replaced_scheduler_is_whole_and_comes_back(times):
    scheduler, other = StepLR(0.5, 1, 0.5), ConstantLR(0.875, 1.0)
    optimizer = sgd(scheduler)
    scheduler.step()
    for _ in range(times):
        other.attach_optimizer(optimizer)
        assert scheduler.optimizer is None
        assert scheduler.get_last_lr() == [0.25]
        assert moved(optimizer) == 0.875
        scheduler.attach_optimizer(optimizer)
        assert other.optimizer is None
        assert moved(optimizer) == 0.25


def test_a_replaced_scheduler_steps_and_loads_without_reaching_the_optimizer_and_says_so():
    scheduler = StepLR(0.5, 1, 0.5)
    optimizer = sgd(scheduler)
    ConstantLR(0.875, 1.0).attach_optimizer(optimizer)
    with pytest.warns(UserWarning, match="no optimizer follows this StepLR.*SGD follows a Const"):
        scheduler.step()
    scheduler.step()
    assert scheduler.get_last_lr() == [0.125]
    scheduler.load_state_dict(StepLR(0.5, 1, 0.5).state_dict())
    assert scheduler.get_last_lr() == [0.5]
    assert moved(optimizer) == 0.875


@pytest.mark.parametrize("name", OWN_RATE)
def test_looking_at_a_replaced_scheduler_leaves_the_warning_about_a_rate_of_its_own(name):
    scheduler = StepLR(0.5)
    optimizer = build(name, scheduler)
    optimizer.register_trainable_weights({"a": parameter()})
    ConstantLR(0.25, 1.0).attach_optimizer(optimizer)
    repr(scheduler), scheduler.get_last_lr(), scheduler(0), repr(optimizer.lr), optimizer.lr(0)
    with pytest.warns(UserWarning, match=f"{name} does not read its learning rate"):
        optimizer.step({"a": jnp.ones(2)})


def test_a_transformation_that_holds_its_scheduler_applies_the_rate_of_the_one_in_its_place():
    first = StepLR(0.5)
    tx = optax.chain(optax.scale_by_schedule(first))
    optimizer = braintools.optim.OptaxOptimizer(tx=tx, lr=first)
    optimizer.register_trainable_weights({"a": parameter()})
    assert moved(optimizer) == 0.5
    ConstantLR(0.25, 1.0).attach_optimizer(optimizer)
    assert moved(optimizer) == 0.25
    with pytest.warns(UserWarning, match="moves"):
        optimizer.lr.attach_optimizer(sgd(0.1))
    assert moved(optimizer) == 0.25
    assert first(0) == -0.5


def test_a_program_compiled_before_the_scheduler_was_replaced_applies_the_new_rate():
    optimizer = sgd(StepLR(0.5))
    weight = optimizer.param_groups[0]["params"]["a"]

    @jit
    def train_step():
        optimizer.step({"a": jnp.ones(2)})

    train_step()
    other = CosineAnnealingLR(0.25, 10)
    other.attach_optimizer(optimizer)
    train_step()
    assert float(weight.value[0]) == -0.75
    other.step(10)
    train_step()
    assert float(weight.value[0]) == -0.75


@pytest.mark.parametrize("shared", [False, True])
def test_a_scheduler_of_braintools_that_was_replaced_says_so(shared):
    theirs = braintools.optim.StepLR(0.5)
    bystander = sgd(theirs)
    optimizer = sgd(theirs)
    moved(optimizer), jit(lambda: bystander.step({"a": jnp.ones(2)}))()
    scheduler = StepLR(0.125)
    scheduler.attach_optimizer(optimizer)
    assert moved(optimizer) == 0.125
    uses = [theirs.step, theirs.get_last_lr]
    if shared:
        uses = [lambda: bystander.step({"a": jnp.ones(2)})]
    for use in uses:
        with pytest.raises(RuntimeError, match="this StepLR of braintools drives no optimizer any"):
            use()
    assert moved(optimizer) == 0.125


def test_an_optimizer_that_could_not_be_built_does_not_hold_its_scheduler():
    scheduler = StepLR(0.5)
    with pytest.raises(TypeError, match="tx must be an instance"):
        braintools.optim.OptaxOptimizer(tx="sgd", lr=scheduler)
    assert moved(sgd(scheduler)) == 0.5  # and nothing says that the scheduler moves


# What an optimizer still is


def test_the_type_of_an_optimizer_builds_a_plain_one_that_works():
    optimizer = sgd(StepLR(0.5))
    assert isinstance(optimizer, braintools.optim.SGD)
    assert type(optimizer) is type(sgd(StepLR(0.25)))
    plain = type(optimizer)(lr=0.25, momentum=0.0)
    assert type(plain) is braintools.optim.SGD
    plain.register_trainable_weights({"a": parameter()})
    assert moved(plain) == 0.25
    plain.load_state_dict(plain.state_dict())
    plain.add_param_group({"b": parameter()}, lr=0.5)
    scheduled = type(optimizer)(lr=StepLR(0.125))
    scheduled.register_trainable_weights({"a": parameter()})
    assert moved(scheduled) == 0.125


def test_the_state_dict_of_an_optimizer_is_plain_and_leaves_its_groups_alone():
    optimizer = sgd(StepLR(0.5))
    optimizer.add_param_group({"b": parameter()}, lr=0.25)
    groups = optimizer.state_dict()["param_groups"]
    assert [type(group) for group in groups.values()] == [dict, dict]
    assert [float(group["lr"]) for group in groups.values()] == [0.5, 0.25]
    assert "tx" in optimizer.param_groups[1]


def test_a_rate_that_is_assigned_to_a_group_is_applied():
    optimizer = sgd(StepLR(0.5))
    optimizer.add_param_group({"b": parameter()})
    optimizer.param_groups[0]["lr"] = 0.125
    optimizer.param_groups[1].update(lr=0.25, note="mine")
    assert optimizer.get_last_lr() == [0.125, 0.25]
    assert optimizer.param_groups[1]["note"] == "mine"
    optimizer.step({"a": jnp.ones(2), "b": jnp.ones(2)})
    np.testing.assert_allclose(optimizer.param_groups[1]["params"]["b"].value, -0.25, rtol=1e-5)


VECTOR, BOOL = jnp.array([0.1, 0.2]), jnp.array(True)


@pytest.mark.parametrize(("value", "error"), [(VECTOR, ValueError), (BOOL, TypeError)])
def test_a_device_value_that_is_no_rate_is_refused(value, error):
    optimizer = sgd(StepLR(0.5))

    def by_state():
        optimizer.param_groups[0]["lr"].value = value

    def by_item():
        optimizer.param_groups[0]["lr"] = value

    def by_attribute():
        optimizer.current_lr = value

    for write in (by_state, by_item, by_attribute):
        with pytest.raises(error, match=r"must be a scalar|must hold real numbers"):
            write()
    assert moved(optimizer) == 0.5


def test_a_vector_in_the_place_of_a_rate_is_not_broadcast_into_the_parameters():
    optimizer = sgd(StepLR(0.5))
    optimizer.lr.current_lrs.value = [VECTOR]
    with pytest.raises(ValueError, match=r"current_lrs\[0\] must be a scalar, got .* \(2,\)"):
        optimizer.step({"a": jnp.ones(2)})


def test_a_rate_set_by_hand_may_be_traced():
    optimizer = sgd(StepLR(0.5))

    @jit
    def train_step(rate):
        optimizer.current_lr = rate
        optimizer.step({"a": jnp.ones(2)})

    train_step(0.25)
    assert optimizer.get_last_lr() == [0.25]
    np.testing.assert_array_equal(optimizer.param_groups[0]["params"]["a"].value, -0.25)


# A program that set a rate by hand, and cannot raise


@pytest.mark.parametrize("bad", [-0.25, float("nan"), float("inf")])
@pytest.mark.parametrize("way", ["current_lr", "group", "list", "apply"])
def test_a_bad_rate_set_in_a_compiled_program_shows_in_what_it_trains_and_on_the_host(way, bad):
    optimizer = sgd(StepLR(0.5))
    scheduler = optimizer.lr
    weight = optimizer.param_groups[0]["params"]["a"]

    @jit
    def train_step(rate):
        if way == "current_lr":
            optimizer.current_lr = rate
        elif way == "group":
            optimizer.param_groups[0]["lr"] = rate
        elif way == "list":
            scheduler.current_lrs.value = [rate]
        else:
            scheduler.apply(lambda _: rate)
        optimizer.step({"a": jnp.ones(2)})

    train_step(0.25)
    assert optimizer.get_last_lr() == [0.25]
    np.testing.assert_array_equal(weight.value, -0.25)
    train_step(bad)
    assert not np.isfinite(weight.value).any()
    reads = [
        scheduler.get_last_lr,
        optimizer.get_last_lr,
        lambda: scheduler.applied_rates,
        scheduler.state_dict,
    ]
    for read in reads:
        with pytest.raises(
            ValueError,
            match=r"current_lrs\[0\] must be finite and not negative.*"
            r"by hand in compiled code.*Set one that is at least 0",
        ):
            read()
    scheduler.step()  # which gives back the scheduled rate
    weight.value = jnp.zeros(2)
    assert moved(optimizer) == 0.5
    train_step(0.125)
    assert optimizer.get_last_lr() == [0.125]


def test_a_negative_rate_shows_though_the_schedule_takes_its_place_in_the_same_program():
    optimizer = sgd(StepLR(0.5))

    @jit
    def train_step(rate):
        optimizer.current_lr = rate
        optimizer.step({"a": jnp.ones(2)})
        optimizer.lr.step()

    train_step(-0.25)
    assert optimizer.get_last_lr() == [0.5]
    assert np.isnan(optimizer.param_groups[0]["params"]["a"].value).all()


@pytest.mark.parametrize("bad", [-0.25, float("nan"), float("inf")])
def test_a_bad_rate_on_a_device_is_refused_on_the_host(bad):
    optimizer = sgd(StepLR(0.5))

    def by_list():
        optimizer.lr.current_lrs.value = [jnp.asarray(bad)]

    def by_attribute():
        optimizer.current_lr = jnp.asarray(bad)

    for write in (by_list, by_attribute):
        with pytest.raises(ValueError, match=r"current_lrs\[0\] must be finite and not negative"):
            write()
    assert moved(optimizer) == 0.5


def test_the_gradient_of_a_rate_that_is_set_by_hand_is_what_it_was():
    def moved_by(rate):
        optimizer = sgd(StepLR(0.5))
        optimizer.current_lr = rate
        optimizer.step({"a": jnp.full(2, 3.0)})
        return optimizer.param_groups[0]["params"]["a"].value[0]

    np.testing.assert_array_equal(jax.grad(moved_by)(0.25), -3.0)


# Rates and arguments cannot be changed in place


IN_PLACE = {
    "an item": lambda rates: rates.__setitem__(0, 0.125),
    "append": lambda rates: rates.append(0.125),
    "+=": lambda rates: rates.__iadd__([0.125]),
    "clear": lambda rates: rates.clear(),
    "sort": lambda rates: rates.sort(),
}


@pytest.mark.parametrize("way", IN_PLACE)
@pytest.mark.parametrize("stepped", [False, True], ids=["new", "after compiled code"])
def test_the_applied_rates_cannot_be_changed_in_place(way, stepped):
    scheduler = StepLR([0.5, 0.25])
    optimizer = sgd(scheduler)
    if stepped:
        jit(scheduler.step)()
    with pytest.raises(TypeError, match=r"cannot be changed in place.*group\['lr'\] = rate"):
        IN_PLACE[way](scheduler.current_lrs.value)
    with pytest.raises(TypeError, match="this list is an argument of a scheduler, and fixed"):
        IN_PLACE[way](scheduler.base_lrs)
    assert scheduler.base_lrs == [0.5, 0.25]
    assert moved(optimizer) == optimizer.current_lr == 0.5


def test_an_optimizer_under_vmap_trains_each_copy_at_its_own_rate():
    def trained(base_lr):
        optimizer = sgd(StepLR(base_lr, 1, 0.5))
        optimizer.add_param_group({"b": parameter()}, lr=base_lr)
        gradients = {"a": jnp.ones(2), "b": jnp.ones(2)}
        optimizer.step(gradients)
        optimizer.lr.step()
        optimizer.step(gradients)
        return [optimizer.param_groups[g]["params"][k].value[0] for g, k in enumerate("ab")]

    for moved_by in vmap(trained)(jnp.array([0.25, 0.5])):
        np.testing.assert_allclose(moved_by, [-0.375, -0.75], rtol=1e-5)


def test_a_second_scheduler_cannot_be_noted_beside_the_one_that_is_followed():
    optimizer = sgd(StepLR(0.5))
    optimizer.add_scheduler(optimizer.lr)
    with pytest.raises(ValueError, match=r"an optimizer follows one scheduler.*attach_opt"):
        optimizer.add_scheduler(StepLR(0.25))
    assert optimizer.get_last_lr() == [0.5]


@pytest.mark.parametrize("saved_groups", [1, 3])
def test_a_checkpoint_of_another_number_of_groups_is_refused_and_nothing_is_lost(saved_groups):
    def with_groups(count):
        optimizer = sgd(StepLR(0.5))
        for group in range(1, count):
            optimizer.add_param_group({f"group {group}": parameter()})
        return optimizer

    saved = with_groups(saved_groups)
    saved.step_count.value = 7
    optimizer = with_groups(2)
    with pytest.raises(ValueError, match=f"has {saved_groups} param groups, but the optimizer has"):
        optimizer.load_state_dict(saved.state_dict())
    assert optimizer.step_count.value == 0


def test_a_bad_rate_in_an_optimizers_checkpoint_is_refused_and_nothing_is_lost():
    optimizer = sgd(StepLR(0.5))
    bad = optimizer.state_dict()
    bad |= {"step_count": 7, "lr": float("nan")}
    with pytest.raises(ValueError, match=r"current_lrs\[0\] must be finite"):
        optimizer.load_state_dict(bad)
    del bad["lr"]
    with pytest.raises(ValueError, match="state_dict has no 'lr'"):
        optimizer.load_state_dict(bad)
    assert optimizer.step_count.value == 0
    assert moved(optimizer) == 0.5


def test_an_optimizers_checkpoint_may_be_loaded_in_a_compiled_program():
    saved = sgd(StepLR(0.5))
    saved.current_lr = 0.125
    moved(saved)
    optimizer = sgd(StepLR(0.5))
    jit(lambda: optimizer.load_state_dict(saved.state_dict()))()
    assert optimizer.step_count.value == 1
    assert moved(optimizer) == optimizer.current_lr == 0.125


def test_a_plain_jax_transformation_of_the_optimizers_step_raises():
    optimizer = sgd(StepLR(0.5))
    step = jax.jit(lambda gradient: optimizer.step({"a": gradient}))
    with pytest.raises(brainstate.TraceContextError, match="the optimizer's step ran under a pl"):
        step(jnp.ones(2))


def test_after_a_step_on_the_host_the_transformation_may_be_compiled_alone():
    optimizer = sgd(StepLR(0.5, 1, 0.5))
    tx, parameters = optimizer.tx, {"a": jnp.zeros(2)}
    assert moved(optimizer) == 0.5
    update = jit(lambda: tx.update({"a": jnp.ones(2)}, tx.init(parameters))[0]["a"][0])
    assert update() == -0.5
    optimizer.lr.step()
    assert update() == -0.25


WRAPPERS = {
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "jit": lambda tx: optax.GradientTransformation(tx.init, jax.jit(tx.update)),
}


def wrapped(name):
    """Return an optimizer with a wrapped transformation, and its parameter."""
    optimizer = braintools.optim.SGD(lr=StepLR(0.5, 1, 0.5))
    optimizer.tx = WRAPPERS[name](optimizer.tx)
    weight = parameter()
    optimizer.register_trainable_weights({"a": weight})
    return optimizer, weight


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_transformation_that_lets_jax_trace_by_itself_says_to_compile_the_whole_step(name):
    optimizer, weight = wrapped(name)
    with pytest.raises(
        brainstate.TraceContextError,
        match=r"SGD asks for the rate within a func.*"
        r"compile the whole step .*brainstate\.transform\.jit",
    ):
        optimizer.step({"a": jnp.ones(2)})
    np.testing.assert_array_equal(weight.value, 0.0)


# MultiSteps applies the mean of two gradients at the rate of the second one.
@pytest.mark.parametrize(("name", "expected"), [("MultiSteps", 0.25), ("apply_if_finite", 0.75)])
def test_compiled_as_a_whole_it_applies_the_rates_of_the_schedule(name, expected):
    optimizer, weight = wrapped(name)

    @jit
    def train_step():
        optimizer.step({"a": jnp.ones(2)})
        optimizer.lr.step()

    train_step(), train_step()
    np.testing.assert_array_equal(weight.value, -expected)


# A scheduler that was built in a function that was traced


def built_within():
    """Return a scheduler and an optimizer that a compiled function built, after its call."""
    kept = []

    @jit
    def train():
        scheduler = StepLR(0.5, 1, 0.5)
        kept.append((scheduler, sgd(scheduler)))
        kept[-1][1].step({"a": jnp.ones(2)})
        scheduler.step()
        return kept[-1][1].param_groups[0]["params"]["a"].value

    np.testing.assert_array_equal(train(), -0.5)
    return kept[0]


OUTLIVED = {
    "step": lambda scheduler: scheduler.step(),
    "compiled step": lambda scheduler: jit(scheduler.step)(),
    "get_last_lr": lambda scheduler: scheduler.get_last_lr(),
    "epoch": lambda scheduler: scheduler.epoch,
    "the optimizer's rates": lambda scheduler: scheduler.optimizer.get_last_lr(),
    "attach_optimizer": lambda scheduler: scheduler.attach_optimizer(sgd(0.25)),
    "add_param_group": lambda scheduler: scheduler.optimizer.add_param_group({"b": parameter()}),
}


@pytest.mark.parametrize("use", OUTLIVED)
def test_a_scheduler_that_outlives_the_function_that_built_it_says_to_build_it_outside(use):
    scheduler, _ = built_within()
    with pytest.raises(
        brainstate.TraceContextError,
        match=r"created in a function that JAX or br.*"
        r"Build scheduler and optimizer outside",
    ):
        OUTLIVED[use](scheduler)


def test_a_plain_loop_in_the_function_that_builds_a_scheduler_says_which_loop_to_use():
    @jit
    def train():
        scheduler = StepLR(0.5)
        jax.lax.fori_loop(0, 3, lambda _, carry: scheduler.step(), None)

    with pytest.raises(brainstate.TraceContextError, match=r"transform\.for_loop in the place"):
        train()


def test_attaching_in_a_compiled_function_to_an_optimizer_from_outside_is_refused():
    optimizer = sgd(0.5)

    @jit
    def train_step():
        StepLR(0.25).attach_optimizer(optimizer)

    with pytest.raises(brainstate.TraceContextError, match="cannot take on an optimizer or"):
        train_step()
    assert moved(optimizer) == optimizer.current_lr == 0.5


# A scheduler that nobody reads


def test_an_optimizer_to_which_a_scheduler_was_only_added_reports_no_rate_that_it_does_not_apply():
    scheduler, optimizer = StepLR(0.25, 1, 0.5), sgd(0.5)
    optimizer.add_scheduler(scheduler)
    assert moved(optimizer) == optimizer.current_lr == 0.5
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"only added would report.*scheduler\.attach_optim"):
            optimizer.get_last_lr()
        scheduler = StepLR(0.25, 1, 0.5)
        sgd(scheduler)  # what drives one optimizer may have been added to another
        optimizer.add_scheduler(scheduler)
    with pytest.warns(UserWarning, match="moves to another optimizer"):
        scheduler.attach_optimizer(optimizer)
    assert optimizer.get_last_lr() == [0.25]
    assert moved(optimizer) == 0.25


def test_stepping_a_scheduler_that_was_only_added_to_an_optimizer_warns_once():
    def train():
        scheduler, optimizer = StepLR(0.25, 1, 0.5), sgd(0.5)
        optimizer.add_scheduler(scheduler)
        for _ in range(2):
            scheduler.step()

    with pytest.warns(UserWarning, match="it was added to SGD.*scheduler.attach_optim") as warned:
        train()
    assert len(warned) == 1


THEIRS = {
    "StepLR": lambda: braintools.optim.StepLR(0.75, 1, 0.5),
    "ChainedScheduler": lambda: braintools.optim.ChainedScheduler([braintools.optim.StepLR(0.75)]),
    "ReduceLROnPlateau": lambda: braintools.optim.ReduceLROnPlateau(0.75, patience=0),
    "CosineAnnealingWarmRestarts": lambda: braintools.optim.CosineAnnealingWarmRestarts(0.75, 2),
}


@pytest.mark.parametrize("name", THEIRS)
def test_a_scheduler_of_braintools_cannot_be_attached_beside_ours(name):
    optimizer = sgd(StepLR(0.25))
    theirs = THEIRS[name]()
    with pytest.raises(RuntimeError, match=r"SGD follows a StepLR of brainsched.*attach one of"):
        theirs.attach_optimizer(optimizer)
    assert moved(optimizer) == optimizer.current_lr == 0.25


@pytest.mark.parametrize("name", THEIRS)
def test_a_scheduler_of_braintools_that_was_attached_before_ours_cannot_write_its_rate(name):
    optimizer = sgd(0.5)
    theirs = THEIRS[name]()
    theirs.attach_optimizer(optimizer)
    StepLR(0.25).attach_optimizer(optimizer)
    step = functools.partial(theirs.step, 1.0) if name == "ReduceLROnPlateau" else theirs.step
    with pytest.raises(RuntimeError, match=r"this SGD follows a StepLR of brainsched"):
        step()
    assert moved(optimizer) == optimizer.current_lr == 0.25


def test_stepping_a_composition_whose_part_was_given_to_the_optimizer_warns_once():
    part = StepLR(0.5)
    sgd(part)
    scheduler = SequentialLR([ConstantLR(0.5, 1.0), part], [3])
    with pytest.warns(UserWarning, match="SGD follows a part of it, a StepLR"):
        scheduler.step()
    scheduler.step()


def test_stepping_a_part_of_the_composition_that_was_given_to_the_optimizer_warns_once():
    part = StepLR(0.5)
    sgd(SequentialLR([ConstantLR(0.5, 1.0), part], [3]))
    with pytest.warns(UserWarning, match="SGD follows the SequentialLR that it is a part of"):
        part.step()
    part.step()


def test_a_transformation_that_reads_the_applied_rates_itself_is_no_cause_for_a_warning():
    scheduler = StepLR(0.5, 1, 0.5)
    tx = optax.scale_by_schedule(lambda count: -scheduler.current_lrs.value[0])
    optimizer = braintools.optim.OptaxOptimizer(tx=tx, lr=scheduler)
    optimizer.register_trainable_weights({"a": parameter()})
    assert moved(optimizer) == 0.5
    scheduler.step()
    assert moved(optimizer) == 0.25


def test_a_transformation_that_reads_each_rate_of_a_replaced_scheduler_of_braintools_gets_ours():
    theirs = braintools.optim.StepLR(0.75)
    tx = optax.scale_by_schedule(lambda count: -sum(theirs.current_lrs.value))
    optimizer = braintools.optim.OptaxOptimizer(tx=tx, lr=theirs)
    first, second = parameter(), parameter()
    optimizer.register_trainable_weights({"a": first})
    optimizer.add_param_group({"b": second}, lr=0.125)
    StepLR(0.25).attach_optimizer(optimizer)
    before = first.value
    optimizer.step({"a": jnp.ones(2), "b": jnp.ones(2)})
    np.testing.assert_allclose(before - first.value, 0.25 + 0.125)


def rebuilt(scheduler):
    return type(scheduler)(scheduler.base_lr, scheduler.step_size, scheduler.gamma)


def through_config(scheduler):
    return brainsched.from_config(scheduler.config)


def through_pickle(scheduler):
    return pickle.loads(pickle.dumps(scheduler))


@pytest.mark.parametrize("compiled", [False, True], ids=["host", "jit"])
@pytest.mark.parametrize("again", [rebuilt, through_config, through_pickle, copy.deepcopy])
def test_stepping_a_copy_of_the_scheduler_that_trains_warns_once(again, compiled):
    scheduler = StepLR(0.5, 1, 0.5)
    optimizer = sgd(scheduler)
    scheduler = again(scheduler)
    message = r"no optimizer follows this StepLR.*SGD follows another one of the same arguments"

    def train_step():
        optimizer.step({"a": jnp.ones(2)})
        scheduler.step()

    train_step = jit(train_step) if compiled else train_step
    with pytest.warns(UserWarning, match=message):
        train_step()
    train_step()
    assert scheduler.get_last_lr() == [0.125]
    assert moved(optimizer) == optimizer.current_lr == 0.5


def test_a_copy_is_silent_before_the_training_and_where_both_are_stepped():
    scheduler = StepLR(0.5, 1, 0.5)
    optimizer, preview = sgd(scheduler), copy.deepcopy(scheduler)
    preview.step()
    moved(optimizer)
    scheduler.step()
    copy.deepcopy(scheduler).step()
    assert moved(optimizer) == 0.25


class Experiment:
    """Has its optimizer, and a scheduler that was never attached."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.optimizer.register_trainable_weights({"a": parameter()})
        self.scheduler = StepLR(0.125, 1, 0.5)

    def train(self):
        self.optimizer.step({"a": jnp.ones(2)})
        self.scheduler.step()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: braintools.optim.SGD(lr=0.5), r"SGD was built with a rate of its own, 0\.5"),
        (
            lambda: braintools.optim.OptaxOptimizer(tx=optax.sgd(0.5)),
            "the transformation of OptaxOptimizer does not ask it for the rate",
        ),
    ],
)
def test_an_attachment_that_was_forgotten_in_an_object_is_warned_of(build, message):
    experiment = Experiment(build())
    with pytest.warns(UserWarning, match=message):
        experiment.train()
    experiment.train()
    assert moved(experiment.optimizer) == 0.5


def test_an_attachment_that_was_forgotten_beside_one_that_was_not_is_warned_of():
    followed, forgotten = sgd(StepLR(0.25)), sgd(0.5)
    scheduler = StepLR(0.125)
    with pytest.warns(UserWarning, match=r"SGD was built with a rate of its own, 0\.5"):
        scheduler.step()
    assert [moved(followed), moved(forgotten)] == [0.25, 0.5]


def test_a_scheduler_beside_an_optimizer_that_reports_a_rate_of_its_own_is_silent():
    tx = brainsched.scale_by_scheduler(StepLR(0.5), {"*": 0})
    optimizer = braintools.optim.OptaxOptimizer(tx=tx)
    optimizer.register_trainable_weights({"a": parameter()})
    StepLR(0.125).step()
    assert moved(optimizer) == optimizer.current_lr == 0.5


def test_a_transformation_that_only_a_step_can_run_is_not_judged():
    tx = optax.chain(optax.contrib.reduce_on_plateau(), optax.sgd(0.5))
    optimizer = braintools.optim.OptaxOptimizer(tx=tx)
    optimizer.register_trainable_weights({"a": parameter()})
    scheduler = StepLR(0.125)
    scheduler.step()
    assert scheduler.optimizer is None


def test_the_transformation_can_be_used_by_itself_in_compiled_code():
    optimizer = sgd(StepLR(0.5))
    params = {"a": jnp.zeros(2)}
    update = jit(lambda: optimizer.tx.update({"a": jnp.ones(2)}, optimizer.opt_state.value, params))
    np.testing.assert_array_equal(update()[0]["a"], [-0.5, -0.5])


def test_a_transformation_that_reads_no_rate_is_warned_of_with_several_groups_too():
    optimizer = braintools.optim.OptaxOptimizer(tx=optax.sgd(0.5), lr=StepLR(0.25))
    optimizer.register_trainable_weights({"a": parameter()})
    optimizer.add_param_group({"b": parameter()})
    with pytest.warns(UserWarning, match="OptaxOptimizer does not read its learning rate"):
        optimizer.step({"a": jnp.ones(2), "b": jnp.ones(2)})


def test_base_rates_of_groups_stay_with_a_scheduler_that_moves_to_an_optimizer_of_fewer():
    scheduler = StepLR(0.5)
    optimizer = sgd(scheduler)
    optimizer.add_param_group({"b": parameter()}, lr=0.25)
    with pytest.warns(UserWarning, match="moves to another optimizer"):
        scheduler.attach_optimizer(other := sgd(0.125))
    assert scheduler.base_lrs == [0.5, 0.25]
    other.add_param_group({"b": parameter()})
    assert other.get_last_lr() == [0.5, 0.25]


def test_the_rate_of_a_group_is_shown_as_any_state_is():
    shown = repr(sgd(StepLR(0.5)).param_groups[0]["lr"])
    ordinary = repr(braintools.optim.OptimState(jnp.float32(0.5)))
    assert shown == ordinary.replace("OptimState", "AliasState")


def test_a_scheduler_that_is_used_alone_is_silent():
    attached = StepLR(0.5)
    optimizer = sgd(attached)
    alone = StepLR(0.5)
    alone.step()
    alone.lr_at([1, 2])
    assert alone.get_last_lr() == attached.get_lr()
    assert moved(optimizer) == 0.5


def test_running_only_the_cell_of_the_scheduler_again_warns(monkeypatch):
    namespace = vars(sys.modules["__main__"])
    for name in ("schedule", "follower"):
        monkeypatch.setitem(namespace, name, None)
    cell = compile("schedule = brainsched.StepLR(0.5)", "cell 1", "exec")
    monkeypatch.setitem(namespace, "brainsched", brainsched)
    exec(cell, namespace)
    namespace["follower"] = sgd(namespace["schedule"])
    namespace["schedule"].step()
    exec(cell, namespace)  # and not the cell of the optimizer
    message = "SGD follows the StepLR that was called 'schedule' before.*attach_optimizer"
    with pytest.warns(UserWarning, match=message):
        namespace["schedule"].step()
    namespace["schedule"].step()


# Where private names of others are used


def test_private_names_of_brainstate_and_braintools_stand_in_one_file():
    source = pathlib.Path(brainsched.__file__).parent
    upstream = (source / "link" / "upstream.py").read_text()
    private = r"\.(_lr_scheduler|_current_lr|_base_lr|_trace_state|_value|_write_value|_state)\b"
    assert len(set(re.findall(private, upstream))) >= 5
    for path in source.rglob("*.py"):
        if path.name != "upstream.py":
            text = path.read_text()
            found = re.findall(private, text)
            assert not found, f"{path.name} uses {found}: move it to upstream.py"
            imports = re.findall(r"from (?:brainstate|braintools|optax)\S*\._\S* import", text)
            assert not imports, textwrap.shorten(str(imports), 80)
