"""The link between a scheduler and an optimizer: what trains is what is reported.

SGD without momentum moves a parameter by minus rate times gradient, so the parameters show which
rate was applied.
"""

import copy
import json
import pathlib
import pickle
import re
import subprocess
import sys
import warnings

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from brainstate.transform import for_loop, jit, vmap

import brainsched
from brainsched import ConstantLR, ExponentialLR, LRScheduler, StepLR

SGD = braintools.optim.SGD


def parameter():
    return brainstate.ParamState(jnp.zeros(2))


def with_weights(optimizer, keys=("a",)):
    optimizer.register_trainable_weights({key: parameter() for key in keys})
    return optimizer


def sgd(lr, keys=("a",)):
    return with_weights(SGD(lr=lr), keys)


def constant(rate):
    return ConstantLR(rate, 1.0, 0)


def moved(optimizer, step=None):
    """Return how far a step under a gradient of 1 moves the parameters of the first group."""
    states = optimizer.param_groups[0]["params"]
    before = {key: np.asarray(state.value, float) for key, state in states.items()}
    if step is None:
        keys = [key for group in optimizer.param_groups for key in group["params"]]
        optimizer.step({key: jnp.ones(2) for key in keys})
    else:
        step()
    (distance,) = {float((before[k] - np.asarray(s.value, float))[0]) for k, s in states.items()}
    return pytest.approx(distance, rel=1e-6)


# Programs that were compiled before the scheduler was replaced


def test_a_compiled_step_that_read_both_schedulers_follows_the_one_that_is_attached():
    first, second = constant(0.125), constant(0.5)
    optimizer = sgd(first)

    @jit
    def train_step():
        reported = first.get_last_lr(), second.get_last_lr()
        optimizer.step({"a": jnp.ones(2)})
        return reported, optimizer.current_lr

    train_step()
    second.attach_optimizer(optimizer)
    seen = []
    assert moved(optimizer, lambda: seen.append(train_step())) == 0.5
    assert seen == [(([0.125], [0.5]), 0.5)]


def test_a_compiled_step_of_two_optimizers_follows_rates_that_were_swapped():
    left, right = sgd(constant(0.125)), sgd(constant(0.5))
    train_step = jit(lambda: [o.step({"a": jnp.ones(2)}) for o in (left, right)] and None)
    train_step()
    constant(0.5).attach_optimizer(left)
    constant(0.125).attach_optimizer(right)
    assert moved(left, train_step) == 0.5
    assert moved(right, train_step) == 0.125


def test_a_compiled_step_trains_on_under_a_cooldown_that_takes_over():
    constant_phase = constant(0.5)
    optimizer = sgd(constant_phase)

    @jit
    def train_step():
        optimizer.step({"a": jnp.ones(2)})
        optimizer.lr.step()

    for _ in range(5):
        train_step()
    brainsched.cooldown(constant_phase, 5, 4, last_epoch=5).attach_optimizer(optimizer)
    assert [moved(optimizer, train_step) for _ in range(5)] == [0.5, 0.375, 0.25, 0.125, 0.0]


def test_a_compiled_step_follows_a_scheduler_that_comes_back():
    first, second = ExponentialLR(0.5, 0.5), constant(0.375)
    optimizer = sgd(first)

    @jit
    def train_step():
        optimizer.step({"a": jnp.ones(2)})
        optimizer.lr.step()

    assert moved(optimizer, train_step) == 0.5
    second.attach_optimizer(optimizer)
    assert moved(optimizer, train_step) == 0.375
    first.attach_optimizer(optimizer)
    assert [moved(optimizer, train_step) for _ in range(2)] == [0.25, 0.125]


def test_a_compiled_step_follows_after_states_are_set_back_to_what_they_were_before():
    optimizer = sgd(constant(0.5))
    states = brainstate.graph.states(optimizer)
    step = jit(lambda: (optimizer.step({"a": jnp.ones(2)}), optimizer.lr.step())[0])
    assert moved(optimizer, step) == moved(optimizer, step) == 0.5
    before = {key: state.value for key, state in states.items()}
    ExponentialLR(0.5, 0.5).attach_optimizer(optimizer)
    assert [moved(optimizer, step), moved(optimizer, step)] == [0.5, 0.25]
    for key, state in brainstate.graph.states(optimizer).items():
        state.restore_value(before[key])
    # The schedule of epoch 2 applies from the next step on; until then the rate of before.
    assert [moved(optimizer, step), moved(optimizer, step)] == [0.5, 0.5 * 0.5**3]


def test_rates_that_a_compiled_program_looks_up_are_those_of_the_scheduler_and_its_groups():
    optimizer = sgd(constant(0.5))
    rates = jit(lambda: optimizer.lr.lr_at(3))
    assert rates().tolist() == [0.5]
    constant(0.25).attach_optimizer(optimizer)
    assert rates().tolist() == [0.25]
    optimizer.add_param_group({"b": parameter()}, lr=0.125)
    assert rates().tolist() == [0.25, 0.125]


def test_a_compiled_loop_follows_the_scheduler_that_is_attached():
    optimizer = sgd(constant(0.5))

    def train_step(_):
        optimizer.step({"a": jnp.ones(2)})
        optimizer.lr.step()
        return optimizer.current_lr

    loop = jit(lambda: for_loop(train_step, jnp.arange(3)))
    loop()
    ExponentialLR(0.5, 0.5).attach_optimizer(optimizer)
    assert moved(optimizer, loop) == 0.875  # 0.5 + 0.25 + 0.125


# One scheduler, one optimizer


@pytest.mark.parametrize("times", [1, 3])
def test_a_replaced_scheduler_is_whole_and_comes_back(times):
    scheduler, other = StepLR(0.5, 1, 0.5), constant(0.875)
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
    scheduler.step()  # in silence: it drives again
    assert moved(optimizer) == 0.125


@pytest.mark.parametrize("compiled", [False, True], ids=["host", "jit"])
def test_a_replaced_scheduler_warns_once_at_its_next_step_and_reaches_the_optimizer_no_more(
    compiled,
):
    scheduler = StepLR(0.5, 1, 0.5)
    optimizer = sgd(scheduler)
    constant(0.875).attach_optimizer(optimizer)
    repr(scheduler), scheduler.get_last_lr(), scheduler.state_dict()
    step = jit(scheduler.step) if compiled else scheduler.step
    with pytest.warns(UserWarning, match="drives no optimizer any more: a ConstantLR was"):
        step()
    step()
    assert scheduler.get_last_lr() == [0.125]
    scheduler.load_state_dict(StepLR(0.5, 1, 0.5).state_dict())
    assert scheduler.get_last_lr() == [0.5]
    assert moved(optimizer) == 0.875


@pytest.mark.parametrize("arguments", [[], [0.5]], ids=["step()", "step(metric)"])
def test_a_replaced_plateau_warns_as_well(arguments):
    scheduler = brainsched.ReduceLROnPlateau(0.5)
    optimizer = sgd(scheduler)
    constant(0.875).attach_optimizer(optimizer)
    with pytest.warns(UserWarning, match="drives no optimizer any more: a ConstantLR was"):
        scheduler.step(*arguments)
    scheduler.step(*arguments)


def test_a_replaced_scheduler_of_braintools_reaches_the_optimizer_no_more():
    former = braintools.optim.CosineAnnealingLR(base_lr=0.5, T_max=10)
    optimizer = sgd(former)
    constant(0.25).attach_optimizer(optimizer)
    former.step()
    assert moved(optimizer) == optimizer.current_lr == 0.25
    assert former.optimizer is None


def test_a_second_optimizer_is_refused_and_a_copy_drives_it():
    scheduler = StepLR(0.5, 1, 0.5)
    first, second = sgd(scheduler), sgd(0.75)
    for attach in (lambda: SGD(lr=scheduler), lambda: scheduler.attach_optimizer(second)):
        with pytest.raises(ValueError, match=r"already drives a SGD: .*copy.deepcopy.*from_config"):
            attach()
    assert scheduler.optimizer is first
    assert moved(second) == second.current_lr == 0.75
    scheduler.step()
    copy.deepcopy(scheduler).attach_optimizer(second)
    third = sgd(brainsched.from_config(scheduler.config))
    assert [moved(optimizer) for optimizer in (first, second, third)] == [0.25, 0.25, 0.5]
    second.lr.step()
    assert [moved(optimizer) for optimizer in (first, second)] == [0.25, 0.125]


def test_an_optimizer_that_could_not_be_built_does_not_hold_its_scheduler():
    scheduler = StepLR(0.5)
    with pytest.raises(TypeError, match="tx must be an instance"):
        braintools.optim.OptaxOptimizer(tx="sgd", lr=scheduler)
    assert moved(sgd(scheduler)) == 0.5


def test_attaching_twice_changes_nothing():
    optimizer = sgd(StepLR(0.5))
    optimizer.current_lr = 0.25
    optimizer.lr.attach_optimizer(optimizer)
    assert moved(optimizer) == optimizer.current_lr == 0.25


@pytest.mark.parametrize("found", [None, 0.1, SGD, optax.sgd(0.1), braintools.optim.Optimizer()])
def test_what_is_no_optimizer_of_braintools_is_refused_with_what_takes_a_schedule(found):
    with pytest.raises(TypeError, match=r"an OptaxOptimizer of braintools\.optim.*as_optax\(\)"):
        StepLR(0.5).attach_optimizer(found)


def test_clocks_and_previews_are_silent():
    scheduler, temperature = StepLR(0.5, 1, 0.5), ExponentialLR(2.0, 0.5)
    optimizer = sgd(scheduler)
    moved(optimizer)
    for bystander in (temperature, copy.deepcopy(scheduler), pickle.loads(pickle.dumps(scheduler))):
        bystander.step()
        assert bystander.epoch == 1
    assert temperature.get_lr() == [1.0]
    assert moved(optimizer) == 0.5


def test_the_repr_says_where_no_optimizer_is_attached():
    scheduler, other = StepLR(0.5), StepLR(0.25)
    assert repr(scheduler).endswith("# rates: 0.5; no optimizer")
    optimizer = sgd(scheduler)
    assert repr(scheduler).endswith("# rates: 0.5")
    other.attach_optimizer(optimizer)
    assert ["no optimizer" in repr(one) for one in (scheduler, other)] == [True, False]


def test_calling_a_scheduler_names_both_cures():
    alone, driving = StepLR(0.5), sgd(StepLR(0.5)).lr
    for scheduler in (alone, driving):
        with pytest.raises(TypeError, match=r"scheduler\.as_optax\(\).*lr=scheduler"):
            scheduler(3)


def test_add_scheduler_of_braintools_changes_nothing_that_is_applied():
    optimizer = sgd(0.5)
    optimizer.add_scheduler(StepLR(0.25, 1))
    assert moved(optimizer) == optimizer.current_lr == 0.5


# Where JAX traces without brainstate


READS = {
    "current_lr": lambda optimizer, x: optimizer.current_lr * x,
    "group": lambda optimizer, x: optimizer.param_groups[0]["lr"].value * x,
    "current_lrs": lambda optimizer, x: optimizer.lr.current_lrs.value[0] * x,
    "get_lr": lambda optimizer, x: optimizer.lr.get_lr()[0] * x,
    "get_last_lr": lambda optimizer, x: optimizer.lr.get_last_lr()[0] * x,
    "optimizer.get_last_lr": lambda optimizer, x: optimizer.get_last_lr()[0] * x,
    "epoch": lambda optimizer, x: optimizer.lr.epoch * x,
}
WRITES = {
    "step": lambda optimizer, x: optimizer.lr.step(),
    "apply": lambda optimizer, x: optimizer.lr.apply(lambda rate: rate),
    "current_lr = ": lambda optimizer, x: setattr(optimizer, "current_lr", x),
    "current_lrs = ": lambda optimizer, x: setattr(optimizer.lr.current_lrs, "value", [0.25]),
    "optimizer.step": lambda optimizer, x: optimizer.step({"a": jnp.ones(2) * x}),
}
PLAIN = {
    "jit": lambda use: jax.jit(use)(1.0),
    "vmap": lambda use: jax.vmap(use)(jnp.ones(2)),
    "scan": lambda use: jax.lax.scan(lambda carry, x: (carry, use(x)), 0, jnp.ones(2)),
}


@pytest.mark.parametrize("transform", PLAIN)
@pytest.mark.parametrize("use", [*READS, *WRITES])
def test_every_use_under_a_plain_jax_transformation_raises_and_names_what_to_use(use, transform):
    optimizer = sgd(StepLR(0.5, 1, 0.5))
    with pytest.raises(brainstate.TraceContextError, match=r"brainstate\.transform\.jit.*as_optax"):
        PLAIN[transform](lambda x: {**READS, **WRITES}[use](optimizer, x))
    optimizer.lr.step()
    assert optimizer.lr.epoch == 1
    assert moved(optimizer) == optimizer.current_lr == 0.25


@pytest.mark.parametrize("name", ["epoch", "applied_rates"])
def test_python_numbers_name_what_to_read_in_compiled_code(name):
    scheduler = StepLR(0.5)
    instead = {"epoch": "last_epoch.value", "applied_rates": r"get_last_lr\(\)"}[name]
    with pytest.raises(brainstate.TraceContextError, match=f"{name} is a Python.*use {instead}"):
        jit(lambda: getattr(scheduler, name))()


def test_a_plain_loop_around_a_scheduler_that_was_built_in_the_same_program_raises():
    @jit
    def train():
        scheduler = StepLR(0.5)
        jax.lax.fori_loop(0, 3, lambda _, carry: scheduler.step(), None)

    with pytest.raises(brainstate.TraceContextError, match="for_loop"):
        train()


def test_a_plain_jax_program_that_builds_scheduler_and_optimizer_may_train_with_them():
    @jax.jit
    def trained(base_lr):
        optimizer = sgd(StepLR(base_lr, 1, 0.5))
        for _ in range(2):
            optimizer.step({"a": jnp.ones(2)})
            optimizer.lr.step()
        return optimizer.param_groups[0]["params"]["a"].value

    np.testing.assert_array_equal(trained(0.5), -0.75)


@pytest.mark.parametrize("what", ["attach", "add a group"])
def test_a_link_that_is_made_inside_a_compiled_function_is_refused_and_nothing_is_lost(what):
    plain, optimizer = sgd(0.5), sgd(StepLR(0.5))

    @jit
    def train_step():
        if what == "attach":
            StepLR(0.25).attach_optimizer(plain)
        else:
            optimizer.add_param_group({"b": parameter()})

    with pytest.raises(brainstate.TraceContextError, match="between two training steps"):
        train_step()
    assert type(plain) is SGD
    for one in (plain, optimizer):
        assert len(one.param_groups) == 1
        assert moved(one) == one.current_lr == 0.5


def test_an_optimizer_under_vmap_trains_each_copy_at_its_own_rate():
    def trained(base_lr):
        optimizer = sgd(StepLR(base_lr, 1, 0.5))
        optimizer.add_param_group({"b": parameter()}, lr=base_lr)
        for _ in range(2):
            optimizer.step({"a": jnp.ones(2), "b": jnp.ones(2)})
            optimizer.lr.step()
        return [optimizer.param_groups[g]["params"][k].value[0] for g, k in enumerate("ab")]

    for moved_by in vmap(trained)(jnp.array([0.25, 0.5])):
        np.testing.assert_allclose(moved_by, [-0.375, -0.75], rtol=1e-6)


# Rates that are set by hand


def by_attribute(optimizer, rate):
    optimizer.current_lr = rate


def by_group(optimizer, rate):
    optimizer.param_groups[0]["lr"] = rate


def by_state(optimizer, rate):
    optimizer.param_groups[0]["lr"].value = rate


def by_update(optimizer, rate):
    optimizer.param_groups[0].update(lr=rate, note="by hand")


def by_list(optimizer, rate):
    optimizer.lr.current_lrs.value = [rate]


def by_apply(optimizer, rate):
    optimizer.lr.apply(lambda _: rate)


by_hand = pytest.mark.parametrize(
    "set_rate", [by_attribute, by_group, by_state, by_update, by_list, by_apply]
)


@by_hand
@pytest.mark.parametrize("rate", [0.125, np.float64(0.125), np.array(0.125), jnp.asarray(0.125)])
def test_a_rate_set_by_hand_is_applied_until_the_next_step(set_rate, rate):
    optimizer = sgd(StepLR(0.5))
    set_rate(optimizer, rate)
    assert moved(optimizer) == optimizer.current_lr == 0.125
    assert optimizer.lr.get_last_lr() == [0.125]
    assert optimizer.lr.get_lr() == [0.5]
    assert json.loads(json.dumps({"lr": optimizer.current_lr})) == {"lr": 0.125}
    optimizer.lr.step()
    assert moved(optimizer) == optimizer.current_lr == 0.5


BAD = [-0.25, float("nan"), float("inf"), "0.1", True, None, np.array([0.1, 0.2])]
BAD += [jnp.array(-0.25), jnp.array(jnp.nan), jnp.array(jnp.inf), jnp.array([0.1, 0.2])]
BAD += [jnp.array(True)]


@by_hand
@pytest.mark.parametrize("bad", BAD, ids=repr)
def test_a_bad_rate_set_by_hand_is_refused_and_changes_nothing(set_rate, bad):
    optimizer = sgd(StepLR(0.5))
    message = r"current_lrs\[0\] must be|a rate must be a scalar|must hold real numbers"
    with pytest.raises((TypeError, ValueError), match=message):
        set_rate(optimizer, bad)
    assert moved(optimizer) == optimizer.current_lr == 0.5


def test_rates_that_were_computed_from_the_applied_ones_are_checked_too():
    optimizer = sgd(StepLR(0.5))
    with pytest.raises(ValueError, match=r"current_lrs\[0\] must be finite and not negative"):
        optimizer.lr.current_lrs.value = jax.tree.map(np.negative, optimizer.lr.current_lrs.value)
    assert moved(optimizer) == optimizer.current_lr == 0.5


def test_rates_of_another_number_of_groups_are_refused():
    scheduler = StepLR(0.5)
    with pytest.raises(ValueError, match="has size 1, one per group, got 2"):
        scheduler.current_lrs.value = [0.1, 0.2]
    with pytest.raises(TypeError, match="'float' has no len"):
        scheduler.current_lrs.value = 0.1


@by_hand
def test_a_traced_rate_is_applied_and_a_bad_one_shows_in_what_is_reported(set_rate):
    optimizer = sgd(StepLR(0.5))
    weight = optimizer.param_groups[0]["params"]["a"]

    @jit
    def train_step(rate):
        set_rate(optimizer, rate)
        weight.value = jnp.zeros(2)
        optimizer.step({"a": jnp.ones(2)})

    # Compiled code cannot raise: a rate below 0 is 0 there, and others are applied as they are.
    for rate, applied in [(0.25, 0.25), (-0.25, 0.0), (np.nan, np.nan), (np.inf, np.inf)]:
        train_step(rate)
        np.testing.assert_array_equal([optimizer.current_lr, -weight.value[0]], [applied] * 2)
    optimizer.lr.step()
    assert optimizer.get_last_lr() == [0.5]


def test_a_rate_that_is_written_into_the_list_as_braintools_does_is_applied_and_reported():
    optimizer = sgd(StepLR(0.5))
    optimizer.lr.current_lrs.value[0] = 0.125
    assert moved(optimizer) == optimizer.current_lr == optimizer.get_last_lr()[0] == 0.125
    optimizer.lr.step()
    assert moved(optimizer) == optimizer.current_lr == 0.5


def test_the_gradient_of_a_rate_that_is_set_by_hand_is_minus_the_gradient_of_the_weight():
    def moved_by(rate):
        optimizer = sgd(StepLR(0.5))
        optimizer.current_lr = rate
        optimizer.step({"a": jnp.full(2, 3.0)})
        return optimizer.param_groups[0]["params"]["a"].value[0]

    assert jax.grad(moved_by)(0.25) == -3.0


# A transformation of the user's


def test_a_transformation_that_reads_the_applied_rates_itself_is_accepted_and_cannot_lose_them():
    scheduler = StepLR(0.5, 1, 0.5)
    tx = optax.scale_by_schedule(lambda count: -scheduler.current_lrs.value[0])
    optimizer = with_weights(braintools.optim.OptaxOptimizer(tx=tx, lr=scheduler))
    assert moved(optimizer) == 0.5
    scheduler.step()
    changes = [
        lambda: optimizer.add_param_group({"b": parameter()}),
        lambda: StepLR(0.75).attach_optimizer(optimizer),
    ]
    for change in changes:
        with pytest.raises(ValueError, match=r"may have a tx= of yours.*scale_by_scheduler"):
            change()
    assert moved(optimizer) == optimizer.current_lr == 0.25
    assert scheduler.optimizer is optimizer


@pytest.mark.parametrize("tx", [optax.sgd(0.5), optax.chain(optax.trace(0.9), optax.scale(-0.5))])
def test_a_transformation_with_a_rate_of_its_own_is_refused_with_what_to_give_instead(tx):
    optimizer = braintools.optim.OptaxOptimizer(tx=tx, lr=StepLR(0.25))
    with pytest.raises(ValueError, match=r"does not read .*scale_by_scheduler\(.*no lr=scheduler"):
        with_weights(optimizer)
    plain = with_weights(braintools.optim.OptaxOptimizer(tx=tx))
    with pytest.raises(ValueError, match=r"does not read .*scale_by_scheduler\("):
        StepLR(0.25).attach_optimizer(plain)
    assert moved(plain) == 0.5


def test_the_cure_for_a_transformation_of_the_users_trains_by_the_schedule():
    tx = optax.chain(optax.identity(), brainsched.scale_by_scheduler(StepLR(0.5, 1, 0.5), {"*": 0}))
    optimizer = with_weights(braintools.optim.OptaxOptimizer(tx=tx))
    assert [moved(optimizer) for _ in range(3)] == [0.5, 0.25, 0.125]


# MultiSteps applies the mean of two gradients at the rate of the second one.
WRAPPERS = {
    "MultiSteps": (lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(), 0.25),
    "apply_if_finite": (lambda tx: optax.apply_if_finite(tx, 3), 0.75),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_transformation_that_jax_traces_by_itself_trains_once_the_whole_step_is_compiled(name):
    wrap, expected = WRAPPERS[name]
    optimizer = SGD(lr=StepLR(0.5, 1, 0.5))
    optimizer.tx = wrap(optimizer.tx)
    with_weights(optimizer)
    with pytest.raises(brainstate.TraceContextError, match="Compile the whole step"):
        moved(optimizer)

    @jit
    def train_step():
        optimizer.step({"a": jnp.ones(2)})
        optimizer.lr.step()

    assert moved(optimizer, lambda: (train_step(), train_step())) == expected


def test_the_transformation_can_be_used_by_itself_in_compiled_code():
    optimizer = sgd(StepLR(0.5, 1, 0.5))
    params = {"a": jnp.zeros(2)}
    update = jit(lambda: optimizer.tx.update({"a": jnp.ones(2)}, optimizer.tx.init(params))[0]["a"])
    np.testing.assert_array_equal(update(), -0.5)
    optimizer.lr.step()
    np.testing.assert_array_equal(update(), -0.25)


# What an optimizer still is


def test_the_type_of_an_optimizer_builds_a_plain_one_that_works():
    optimizer = sgd(StepLR(0.5))
    assert isinstance(optimizer, SGD)
    assert type(optimizer) is type(sgd(StepLR(0.25)))
    plain = type(optimizer)(lr=0.25, momentum=0.0)
    assert type(plain) is SGD
    with_weights(plain).add_param_group({"b": parameter()}, lr=0.5)
    plain.load_state_dict(plain.state_dict())
    assert moved(plain) == 0.25
    assert moved(with_weights(type(optimizer)(lr=StepLR(0.125)))) == 0.125


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps])
def test_copies_of_an_optimizer_say_what_to_do(duplicate):
    optimizer = sgd(StepLR(0.5))
    with pytest.raises(TypeError, match=r"SGD has a scheduler, and cannot .*state_dict\(\)"):
        duplicate(optimizer)
    clone = brainstate.graph.clone(optimizer)
    with pytest.raises(TypeError, match="cannot be copied"):
        clone.step({"a": jnp.ones(2)})
    with pytest.raises(TypeError, match="cannot be copied"):
        StepLR(0.25).attach_optimizer(clone)
    assert moved(optimizer) == 0.5


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
    optimizer.lr.step()
    assert moved(optimizer) == 0.5


@pytest.mark.parametrize("name", ["Rprop", "Fromage"])
def test_with_warnings_as_errors_weights_are_registered_and_schedulers_attached_wholly_or_not(name):
    optimizer = getattr(braintools.optim, name)(lr=StepLR(0.5))
    scheduler = StepLR(0.25)
    with pytest.warns(UserWarning, match="does not read its learning rate") as found:
        with_weights(optimizer)
    assert len(found) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="does not read its learning rate"):
            scheduler.attach_optimizer(optimizer)
        unregistered = getattr(braintools.optim, name)(lr=StepLR(0.5))
        with pytest.raises(UserWarning, match="does not read its learning rate"):
            with_weights(unregistered)
        optimizer.add_param_group({"b": parameter()})  # of the same algorithm: said already
    assert (scheduler.optimizer, optimizer.get_last_lr()) == (None, [0.5, 0.5])
    assert (unregistered.param_groups, unregistered.opt_state) == ([], None)


# Where warnings point, in a program of a user's: the tests' hook for shapes adds frames


WARNS = """
import brainstate, braintools, brainsched, jax.numpy as jnp
def registered(lr, name="SGD"):
    optimizer = getattr(braintools.optim, name)(lr=lr)
    weights = {"a": brainstate.ParamState(jnp.zeros(2))}
    optimizer.register_trainable_weights(weights)  # 0
    return optimizer
scheduler = brainsched.StepLR(0.5)
optimizer = registered(scheduler)
brainsched.StepLR(0.25).attach_optimizer(optimizer)
scheduler.step()  # 1
registered(brainsched.StepLR(0.5), "Rprop")
brainsched.StepLR(0.5).attach_optimizer(registered(0.5, "Fromage"))  # 2
brainsched.StepLR(0.5, 20).load_state_dict(brainsched.StepLR(0.5, 30).state_dict())  # 3
"""


def test_warnings_point_at_the_line_of_the_user(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(WARNS)
    run = subprocess.run(
        [sys.executable, "-W", "always::UserWarning", script], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    lines = re.findall(r"script\.py:(\d+): UserWarning", run.stderr)
    shown = [WARNS.splitlines()[int(line) - 1].rpartition("# ")[2] for line in lines]
    assert shown == ["1", "0", "2", "3"], run.stderr


# Where private names of others are used


def test_private_names_of_brainstate_and_braintools_stand_in_the_files_for_them():
    source = pathlib.Path(brainsched.__file__).parent
    private = r"\.(_lr_scheduler|_current_lr|_base_lr|_trace_state|_value|_write_value|_state)\b"
    link = source / "link"
    assert len(set(re.findall(private, (link / "states.py").read_text()))) >= 4
    for path in source.rglob("*.py"):
        if path not in (link / "states.py", link / "trainer_upstream.py"):
            text = path.read_text()
            assert not re.findall(private, text), f"{path.name}: move it to link/states.py"
            assert not re.findall(r"from (?:brainstate|braintools|optax)\S*\._\S* import", text)
