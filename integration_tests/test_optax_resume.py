"""check_resumed, and states that the first version saved."""

import pickle
import re
from typing import Any, NamedTuple

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx

from brainsched import (
    PerUpdate,
    PiecewiseConstantSchedule,
    StepLR,
    WarmupCosineSchedule,
    check_resumed,
    cooldown,
    rates_by_name,
    scale_by_scheduler,
)
from brainsched.optax.scale import ScaleBySchedulerState

PARAMS = {"body": jnp.ones(2), "head": jnp.ones(())}
GROUPS = {"head": 1, "*": 0}


def through_msgpack(state, target, folder):
    return flax.serialization.from_bytes(target, flax.serialization.to_bytes(state))


def through_orbax(state, target, folder):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "state", state)
        checkpointer.wait_until_finished()
        return checkpointer.restore(folder / "state", target)


def through_pickle(state, target, folder):
    return pickle.loads(pickle.dumps(jax.tree.map(np.asarray, state)))


formats = pytest.mark.parametrize("saved_through", [through_msgpack, through_orbax, through_pickle])


def trained(scheduler, updates, groups=GROUPS, **options):
    """Return an optimizer, and its state after so many updates."""
    tx = optax.chain(optax.scale_by_adam(), scale_by_scheduler(scheduler, groups, **options))
    state = tx.init(PARAMS)
    for _ in range(updates):
        _, state = jax.jit(tx.update)(PARAMS, state)
    return tx, state


def same_structure(tree, other):
    definitions: list[Any] = [jax.tree.structure(tree), jax.tree.structure(other)]
    return definitions[0] == definitions[1]


def plan(total=10, base_lr=(0.5, 0.25), **options):
    return WarmupCosineSchedule(list(base_lr), 2, total, **options)


@formats
def test_what_is_resumed_under_the_same_schedule_is_resumed_without_a_word(saved_through, tmp_path):
    _, state = trained(plan(), 25, steps_per_epoch=10)
    tx, target = trained(plan(), 0, steps_per_epoch=10)
    restored = saved_through(state, target, tmp_path)
    check_resumed(restored, plan(), target, steps_per_epoch=10)
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    assert same_structure(restored, target)
    jax.jit(tx.update)(PARAMS, restored)


def test_the_rates_of_the_latest_update_are_shown_as_they_were_and_as_they_would_be():
    """At update 24, epoch 2.4: 0.4 of 8 epochs of the cosine are done, or 0.4 of 18."""
    _, state = trained(plan(), 25, steps_per_epoch=10)
    old, new = (np.cos(np.pi / 2 * 0.4 / n) ** 2 for n in (8, 18))
    expected = re.escape(
        f"the schedule changed since the optimizer was saved: at update 24 its rates were "
        f"{0.5 * old:.6g}, {0.25 * old:.6g} and are {0.5 * new:.6g}, {0.25 * new:.6g}. "
    )
    with pytest.warns(UserWarning, match=expected) as caught:
        check_resumed(state, plan(20), steps_per_epoch=10)
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("scheduler", "options"),
    [
        (plan(), {"steps_per_epoch": 5}),
        (plan(), {"steps_per_epoch": 10, "staircase": True}),
        (plan(), {}),
        (plan(base_lr=[0.5, 0.125]), {"steps_per_epoch": 10}),
        (plan(eta_min=0.1), {"steps_per_epoch": 10}),
        (plan(base_lr=[0.5, 0.25, 0.25]), {"steps_per_epoch": 10}),
        (StepLR([0.5, 0.25]), {"steps_per_epoch": 10}),
    ],
)
@pytest.mark.parametrize("saved_through", [through_msgpack, through_pickle])
def test_a_schedule_with_other_rates_at_the_latest_update_is_noticed(
    scheduler, options, saved_through, tmp_path
):
    _, state = trained(plan(), 25, steps_per_epoch=10)
    _, target = trained(plan(), 0, steps_per_epoch=10)
    with pytest.warns(UserWarning, match="schedule changed .* at update 24 its rates were 0.49"):
        check_resumed(saved_through(state, target, tmp_path), scheduler, **options)


def test_a_schedule_that_differs_only_later_is_no_change_yet():
    before, after = (PiecewiseConstantSchedule(0.5, [n], [1.0, 0.5]) for n in (3, 4))
    tx, state = trained(before, 3, {"*": 0})  # the latest update was number 2
    check_resumed(state, after)
    _, state = tx.update(PARAMS, state)
    with pytest.warns(UserWarning, match="at update 3 its rates were 0.25 and are 0.5"):
        check_resumed(state, after)


def test_groups_that_are_renamed_or_written_otherwise_are_no_change():
    before = StepLR({"low": 0.25, "high": 0.5}, 30)
    _, state = trained(before, 2, {"head": "high", "*": "low"})
    after = StepLR({"slow": 0.25, "fast": 0.5}, 30)
    renamed, _ = trained(after, 0, lambda path: "fast" if path == "head" else "slow")
    check_resumed(state, after, renamed.init(PARAMS))


def test_a_parameter_in_another_group_is_noticed_until_the_next_update():
    scheduler = StepLR({"low": 0.25, "high": 0.5}, 30)
    _, state = trained(scheduler, 2, {"head": "high", "*": "low"})
    tx, target = trained(scheduler, 0, {"body": "high", "*": "low"})
    check_resumed(state, scheduler)
    with pytest.warns(UserWarning, match="a parameter is in another param group than when"):
        check_resumed(state, scheduler, target)
    _, state = jax.jit(tx.update)(PARAMS, state)
    check_resumed(state, scheduler, target)


def test_a_change_that_is_intended_is_warned_of_once():
    _, state = trained(plan(), 25, steps_per_epoch=10)
    tx, target = trained(plan(20), 0, steps_per_epoch=10)
    with pytest.warns(UserWarning, match="the schedule changed"):
        check_resumed(state, plan(20), steps_per_epoch=10)
    _, state = jax.jit(tx.update)(PARAMS, state)
    assert same_structure(state, target)
    check_resumed(state, plan(20), steps_per_epoch=10)


def test_a_scale_by_hand_and_a_multiplier_are_no_change():
    half = optax.scale(0.5)
    tx, state = trained(plan(), 5, multiplier=half)
    state = optax.tree_utils.tree_set(state, learning_rate_scale=jnp.float32(0.5))
    check_resumed(state, plan())
    _, state = jax.jit(tx.update)(PARAMS, state)
    check_resumed(state, plan())


def test_a_state_before_its_first_update_is_compared_at_the_update_to_come():
    scheduler = StepLR(0.5, 3, 0.5, last_epoch=3)
    for steps_per_epoch in (1, 2):
        _, state = trained(scheduler, 0, {"*": 0}, steps_per_epoch=steps_per_epoch)
        check_resumed(state, scheduler, steps_per_epoch=steps_per_epoch)


@pytest.mark.parametrize("scheduler", [plan(), StepLR(0.5, 30)])
def test_states_that_are_replicated_over_devices_are_one_state(scheduler):
    groups = GROUPS if len(scheduler.base_lrs) > 1 else {"*": 0}
    _, state = trained(scheduler, 2, groups)
    replicated = jax.tree.map(lambda leaf: jnp.stack([leaf] * 4), state)
    check_resumed(replicated, scheduler, state)
    with pytest.warns(UserWarning, match="the schedule changed"):
        check_resumed(replicated, StepLR([0.1] * len(scheduler.base_lrs)))
    assert rates_by_name(replicated, scheduler)["0"].shape == (4,)


def test_the_optimizer_of_nnx_can_be_given_whole():
    tx = optax.chain(optax.scale_by_adam(), scale_by_scheduler(plan(), {"bias": 1, "*": 0}))
    optimizer = nnx.Optimizer(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), tx, wrt=nnx.Param)
    for state in (optimizer, optimizer.opt_state):
        check_resumed(state, plan(warmup_start_lr=0.0), optimizer)
        with pytest.warns(UserWarning, match="the schedule changed"):
            check_resumed(state, plan(warmup_start_lr=0.1))


def test_what_cannot_be_checked_raises():
    _, state = trained(plan(), 1)
    with pytest.raises(ValueError, match="no state of scale_by_scheduler"):
        check_resumed(state[0], plan())
    with pytest.raises(TypeError, match="scheduler must be an LRScheduler, got float"):
        check_resumed(state, 0.1)  # type: ignore[arg-type]  # which is what is tested
    many = jax.vmap(lambda count: state[1]._replace(count=count))(jnp.arange(3))
    with pytest.raises(ValueError, match=r"states of many runs, of shape \(3,\)"):
        check_resumed(many, plan())


def test_of_an_optimizer_with_two_schedules_one_state_is_enough():
    schedulers = {"matrices": plan(eta_min=0.1), "others": StepLR([0.5, 0.25], 30)}
    parts = {
        name: scale_by_scheduler(scheduler, GROUPS, allow_unused=True)
        for name, scheduler in schedulers.items()
    }
    tx = optax.multi_transform(parts, {"body": "matrices", "head": "others"})
    state = jax.jit(tx.update)(PARAMS, tx.init(PARAMS))[1]
    for name, scheduler in schedulers.items():
        check_resumed(state, scheduler, tx.init(PARAMS))
        assert rates_by_name(state.inner_states[name], scheduler)
    with pytest.raises(ValueError, match=r"2 states .*opt_state.inner_states\['matrices'\]"):
        rates_by_name(state, schedulers["others"])
    with pytest.warns(UserWarning, match=r"rates were 0, 0 and .*; at update 0 .* 0.5, 0.25 and"):
        check_resumed(state, StepLR([0.1, 0.1]))


def test_a_branch_is_silent_up_to_where_it_leaves():
    _, state = trained(plan(), 60, steps_per_epoch=10)
    branch = cooldown(plan(), at=6, length=2)
    check_resumed(state, branch, steps_per_epoch=10)
    check_resumed(state, PerUpdate(branch, 10))
    with pytest.warns(UserWarning, match="the schedule changed"):
        check_resumed(state, cooldown(plan(), at=4, length=2), steps_per_epoch=10)


# The state of version 0.1.0


class StateOf010(NamedTuple):
    """The state of scale_by_scheduler in version 0.1.0."""

    count: Any
    hyperparams: dict[str, Any]


def saved_by_010(state):
    """Return what version 0.1.0 would have saved in the place of ``state``."""
    adam, ours = state
    rates = jnp.atleast_1d(ours.hyperparams["learning_rate"])
    return (adam, StateOf010(ours.count, {"learning_rate": rates}))


@pytest.mark.parametrize("saved_through", [through_msgpack, through_orbax])
@pytest.mark.parametrize("base_lr", [[0.5, 0.25], [0.5]])
def test_a_checkpoint_of_the_first_version_loads_and_goes_on(saved_through, base_lr, tmp_path):
    groups = GROUPS if len(base_lr) > 1 else {"*": 0}
    straight, state = trained(plan(base_lr=base_lr), 5, groups)
    tx, target = trained(plan(base_lr=base_lr), 0, groups, legacy_state=True)
    restored = saved_through(saved_by_010(state), target, tmp_path)
    assert isinstance(restored[1], ScaleBySchedulerState)
    check_resumed(restored, plan(base_lr=base_lr), straight.init(PARAMS))
    with pytest.warns(UserWarning, match="the schedule changed"):
        check_resumed(restored, plan(20, base_lr=base_lr))
    loaded = restored
    for _ in range(3):
        expected, state = jax.jit(straight.update)(PARAMS, state)
        found, restored = jax.jit(tx.update)(PARAMS, restored)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert same_structure(restored, loaded)
    assert jax.tree.map(jnp.shape, restored) == jax.tree.map(jnp.shape, loaded)
    assert restored[1].count == 8


def test_a_state_of_the_first_version_goes_on_as_it_is():
    """As pickle gives it back, and braintools' load_state_dict: without a target."""
    tx, state = trained(plan(), 5)
    adam, ours = state
    old = (adam, ScaleBySchedulerState(ours.count, {"learning_rate": jnp.zeros(2)}))
    expected, _ = jax.jit(tx.update)(PARAMS, state)
    found, after = jax.jit(tx.update)(PARAMS, old)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert same_structure(after, old)
    assert after[1].hyperparams["learning_rate"].tolist() == plan().lr_at(5).tolist()
