"""check_resumed, and states that the first version saved."""

import pickle
import re
import warnings
import zlib
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
    ExponentialDecayLR,
    Extension,
    LambdaLR,
    LRScheduler,
    PerUpdate,
    PiecewiseConstantSchedule,
    SequentialLR,
    StepLR,
    WarmupCosineSchedule,
    WarmupScheduler,
    check_resumed,
    cooldown,
    rates_by_name,
    rewarm,
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
def test_what_is_resumed_under_the_same_plan_is_resumed_without_a_word(saved_through, tmp_path):
    _, state = trained(plan(), 25, steps_per_epoch=10)
    scheduler = plan()
    tx, target = trained(scheduler, 0, steps_per_epoch=10)
    restored = saved_through(state, target, tmp_path)
    check_resumed(restored, scheduler)
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    assert same_structure(restored, target)
    jax.jit(tx.update)(PARAMS, restored)


@pytest.mark.parametrize(
    ("scheduler", "options", "named"),
    [
        (plan(20), {"steps_per_epoch": 10}, r"plan: total_steps \(10 -> 20\) changed"),
        (plan(), {"steps_per_epoch": 5}, r"plan: steps_per_epoch \(10 -> 5\) changed"),
        (plan(), {"steps_per_epoch": 10, "staircase": True}, r": staircase \(0 -> 1\) changed"),
        (plan(base_lr=[0.5, 0.125]), {"steps_per_epoch": 10}, "plan: base_lr changed"),
        (plan(eta_min=0.1), {"steps_per_epoch": 10}, r"plan: eta_min \(0 -> 0.1\) changed"),
        (plan(20, eta_min=0.1), {}, r"steps_per_epoch \(10 -> 1\), total_steps .*, eta_min .* ch"),
        (plan(base_lr=[1.0] * 3), {"steps_per_epoch": 10}, r"number of param groups \(2 -> 3\)"),
        (
            StepLR([0.5, 0.25]),
            {"steps_per_epoch": 10},
            r"plan: class \(WarmupCosineSchedule -> StepLR\) ch",
        ),
    ],
)
@pytest.mark.parametrize("saved_through", [through_msgpack, through_pickle])
def test_what_changed_is_named(scheduler, options, named, saved_through, tmp_path):
    _, state = trained(plan(), 25, steps_per_epoch=10)
    _, target = trained(scheduler, 0, lambda path: 0, allow_unused=True, **options)
    restored = saved_through(state, target, tmp_path)
    with pytest.warns(UserWarning, match=named):
        check_resumed(restored, scheduler)
    with pytest.warns(UserWarning, match=named):
        check_resumed(restored, scheduler, **{"steps_per_epoch": 1, "staircase": False, **options})


def test_the_rates_that_were_and_will_be_go_by_the_groups_names():
    """At update 24, epoch 2.4: 0.4 of 8 epochs of the cosine are done, or 0.4 of 18."""
    before = WarmupCosineSchedule({"body": 0.5, "head": 0.25}, 2, 10)
    _, state = trained(before, 25, steps_per_epoch=10)
    after = WarmupCosineSchedule({"body": 0.5, "head": 0.25}, 2, 20)
    old, new = (np.cos(np.pi / 2 * 0.4 / n) ** 2 for n in (8, 18))
    expected = re.escape(
        f"number 24: group body {0.5 * old:.6g} -> {0.5 * new:.6g}, "
        f"group head {0.25 * old:.6g} -> {0.25 * new:.6g}. "
    )
    with pytest.warns(UserWarning, match=expected):
        check_resumed(state, after, steps_per_epoch=10)


def test_a_change_that_is_yet_to_come_is_found():
    before, after = (PiecewiseConstantSchedule(0.5, [n], [1.0, 0.5]) for n in (50, 60))
    _, state = trained(before, 3, {"*": 0})
    with pytest.warns(UserWarning, match="boundaries changed.* number 2, agree: group 0 0.5. "):
        check_resumed(state, after)


def test_parts_of_compositions_are_named():
    def composed(warmup, decay, milestone=5):
        parts = [WarmupScheduler(0.5, warmup), StepLR(0.5, 10, decay)]
        return SequentialLR(parts, [milestone])

    _, state = trained(composed(5, 0.5), 3, {"*": 0})
    check_resumed(state, composed(5, 0.5))
    with pytest.warns(
        UserWarning, match=r"schedulers\[0\].warmup_epochs \(5 -> 4\), schedulers\[1"
    ):
        check_resumed(state, composed(4, 0.25))
    with pytest.warns(UserWarning, match="milestones changed"):
        check_resumed(state, composed(5, 0.5, 6))
    with pytest.warns(UserWarning, match=r"number of schedulers \(2 -> 3\)"):
        check_resumed(state, SequentialLR([StepLR(0.5) for _ in range(3)], [5, 9]))
    many = SequentialLR([composed(5, 0.5) for _ in range(9)], list(range(10, 90, 10)))
    _, state = trained(many, 3, {"*": 0})
    parts = [*(composed(5, 0.5) for _ in range(8)), composed(5, 0.25)]
    check_resumed(state, many)
    with pytest.warns(UserWarning, match="further arguments changed"):
        check_resumed(state, SequentialLR(parts, list(range(10, 90, 10))))


class Shifted(LRScheduler):
    """Begins where it is told to, which is not its last argument."""

    def __init__(self, base_lr=0.5, last_epoch=0, shift=0):
        self.shift = shift
        super().__init__(base_lr, last_epoch)

    def formula(self, epoch, base_lrs, xp):
        return base_lrs * xp.where(epoch >= 50 + self.shift, 0.5, 1.0)


def test_an_argument_behind_the_epoch_that_it_begins_at_belongs_to_the_plan():
    _, state = trained(Shifted(), 3, {"*": 0})
    check_resumed(state, Shifted(last_epoch=2))
    with pytest.warns(UserWarning, match=r"shift \(0 -> 4\) changed"):
        check_resumed(state, Shifted(shift=4))
    _, state = trained(Shifted(shift=4), 3, {"*": 0})
    with pytest.warns(UserWarning, match=r"shift \(4 -> 0\) changed"):
        check_resumed(state, Shifted())


@pytest.mark.parametrize("staircase", [False, True])
def test_a_scheduler_that_was_built_again_is_of_the_same_plan_at_any_updates_an_epoch(staircase):
    _, state = trained(plan(), 25, steps_per_epoch=10, staircase=staircase)
    check_resumed(state, plan())
    check_resumed(state, PerUpdate(plan(), 10, staircase))
    with pytest.warns(UserWarning, match=r"plan: steps_per_epoch \(10 -> 5\) changed"):
        check_resumed(state, PerUpdate(plan(), 5, staircase))
    with pytest.warns(UserWarning, match=r"plan: total_steps \(10 -> 20\) changed"):
        check_resumed(state, plan(20))
    with pytest.warns(UserWarning, match=r"plan: steps_per_epoch \(10 -> 5\) changed"):
        check_resumed(state, plan(), steps_per_epoch=5)


def test_one_update_an_epoch_is_no_staircase_and_two_are():
    _, state = trained(plan(), 3)
    check_resumed(state, plan(), steps_per_epoch=1, staircase=True)
    _, state = trained(plan(), 3, steps_per_epoch=2)
    with pytest.warns(UserWarning, match=r"plan: staircase \(0 -> 1\) changed"):
        check_resumed(state, plan(), steps_per_epoch=2, staircase=True)


def test_an_argument_that_is_no_number_is_named_without_its_value():
    bounded, unbounded = (
        ExponentialDecayLR(0.5, 10, 0.5, end_value=0.25),
        ExponentialDecayLR(0.5, 10, 0.5),
    )
    for before, after in [(bounded, unbounded), (unbounded, bounded)]:
        _, state = trained(before, 3, {"*": 0})
        with pytest.warns(UserWarning, match=r"another plan: end_value changed"):
            check_resumed(state, after)
    _, state = trained(plan(), 3)
    with pytest.warns(UserWarning, match=r"base_lr changed"):
        check_resumed(state, plan(base_lr=(0.5, 0.125)))


@pytest.mark.parametrize("changed", [(0.25, 10, 0.5), (0.5, 9, 0.5), (0.5, 10, 0.25)])
@pytest.mark.parametrize("parts", [6, 7, 8, 9, 10, 11])
def test_however_many_arguments_there_are_each_counts(parts, changed):
    def chain(*last):
        each = [StepLR(0.5, 10, 0.5) for _ in range(parts - 1)]
        return SequentialLR([*each, StepLR(*last)], list(range(10, 10 * parts, 10)))

    _, state = trained(chain(0.5, 10, 0.5), 1, {"*": 0})
    (saved,) = (inner.hyperparams["plan"] for inner in state if hasattr(inner, "hyperparams"))
    assert saved.shape == (32,)
    check_resumed(state, chain(0.5, 10, 0.5))
    of_one = r"(base_lr|gamma) \(0.5 -> 0.25\)|step_size \(10 -> 9\)"
    with pytest.warns(UserWarning, match=rf"({of_one}|further arguments) changed"):
        check_resumed(state, chain(*changed))


def test_a_plan_is_written_as_later_versions_will_read_it():
    def checksum(text):
        return -1 - zlib.crc32(text.encode()) // 2**8

    _, state = trained(plan(eta_min=0.125), 1, steps_per_epoch=10)
    (saved,) = (inner.hyperparams["plan"] for inner in state if hasattr(inner, "hyperparams"))
    of_class = (
        '["WarmupCosineSchedule", "base_lr", "warmup_steps", "total_steps", '
        '"warmup_start_lr", "eta_min", "last_epoch"]'
    )
    arguments = [checksum("[0.5, 0.25]"), 2, 10, 0, 0.125]
    expected = [2, 10, 0, checksum(of_class), *arguments, *[0] * 23]
    np.testing.assert_array_equal(saved, np.asarray(expected, np.float32))


def test_epochs_that_are_stretched_in_either_way_are_one_plan():
    _, state = trained(plan(), 25, steps_per_epoch=10)
    check_resumed(state, PerUpdate(plan(), 10))
    with pytest.warns(UserWarning, match=r"steps_per_epoch \(10 -> 20\)"):
        check_resumed(state, PerUpdate(plan(), 20))


def test_a_function_of_the_users_that_gives_other_rates_is_found_by_the_rates():
    _, state = trained(LambdaLR(0.5, lambda epoch: 1 / (1 + epoch)), 3, {"*": 0})
    check_resumed(state, LambdaLR(0.5, lambda epoch: 1 / (1 + epoch)))
    with pytest.warns(UserWarning, match="its rates changed.* 0.166667 -> 0.1"):
        check_resumed(state, LambdaLR(0.5, lambda epoch: 1 / (1 + 2 * epoch)))


def test_a_rate_set_by_hand_is_no_other_plan():
    tx, state = trained(plan(), 5)
    state = optax.tree_utils.tree_set(state, learning_rate_scale=jnp.float32(0.5))
    check_resumed(state, plan())
    _, state = jax.jit(tx.update)(PARAMS, state)
    check_resumed(state, plan())


def test_traced_rates_are_not_compared():
    def state(base_lr):
        return trained(StepLR(base_lr, 5), 0, {"*": 0})[1]

    states = jax.jit(state)(0.5)
    check_resumed(states, StepLR(0.5, 5))
    with pytest.warns(UserWarning, match=r"step_size \(5 -> 6\)"):
        check_resumed(states, StepLR(0.5, 6))


def test_the_optimizer_of_nnx_can_be_given_whole():
    tx = optax.chain(optax.scale_by_adam(), scale_by_scheduler(plan(), {"bias": 1, "*": 0}))
    optimizer = nnx.Optimizer(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), tx, wrt=nnx.Param)
    for state in (optimizer, optimizer.opt_state):
        check_resumed(state, plan())
        with pytest.warns(UserWarning, match="total_steps"):
            check_resumed(state, plan(20))


def test_what_cannot_be_checked_raises():
    _, state = trained(plan(), 1)
    with pytest.raises(ValueError, match="no state of scale_by_scheduler"):
        check_resumed(state[0], plan())
    with pytest.raises(TypeError, match="scheduler must be an LRScheduler, got float"):
        check_resumed(state, 0.1)  # type: ignore[arg-type]  # which is what is tested
    with pytest.raises(TypeError, match="outside of compiled code"):
        jax.jit(lambda state: check_resumed(state, plan()))(state)
    shapes = nnx.eval_shape(lambda: state)
    with pytest.raises(TypeError, match=r"must hold arrays, got the shapes .* nnx.eval_shape"):
        check_resumed(shapes, plan())
    many = jax.vmap(lambda _: state)(jnp.arange(3))
    with pytest.raises(ValueError, match=r"states of many runs, of shape \(3,\)"):
        check_resumed(many, plan())


# The state of version 0.1.0


class StateOf010(NamedTuple):
    """The state of scale_by_scheduler in version 0.1.0."""

    count: Any
    hyperparams: dict[str, Any]


def saved_by_010(state):
    """Return what version 0.1.0 would have saved in the place of ``state``."""
    adam, ours = state
    rates = ours.hyperparams["learning_rate"]
    return (adam, StateOf010(ours.count, {"learning_rate": rates}))


@pytest.mark.parametrize("saved_through", [through_msgpack, through_orbax])
def test_a_checkpoint_of_the_first_version_loads_and_goes_on(saved_through, tmp_path):
    straight, state = trained(plan(), 5)
    tx, target = trained(plan(), 0, legacy_state=True)
    restored = saved_through(saved_by_010(state), target, tmp_path)
    assert isinstance(restored[1], ScaleBySchedulerState)
    check_resumed(restored, plan())
    with pytest.warns(UserWarning, match="its rates changed"):
        check_resumed(restored, plan(20))
    with pytest.warns(UserWarning, match=r"number of param groups \(2 -> 3\)"):
        check_resumed(restored, plan(base_lr=[1.0] * 3))
    loaded = restored
    for _ in range(3):
        expected, state = jax.jit(straight.update)(PARAMS, state)
        found, restored = jax.jit(tx.update)(PARAMS, restored)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert same_structure(restored, loaded)
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


@pytest.mark.parametrize("transform", [lambda update: update, jax.jit])
@pytest.mark.parametrize("later", [plan(20), Extension(plan(), at=2, end=10, new_end=20)])
def test_a_plan_that_was_changed_on_purpose_is_the_plan_from_the_next_update_on(transform, later):
    _, state = trained(plan(), 25, steps_per_epoch=10)
    tx, target = trained(later, 0, steps_per_epoch=10)
    _, state = transform(tx.update)(PARAMS, state)
    assert same_structure(state, target)
    check_resumed(state, later)
    with pytest.warns(UserWarning, match="another plan"):
        check_resumed(state, plan(30), steps_per_epoch=10)


def test_under_scan_and_vmap_the_plan_keeps_its_shape_and_type():
    tx = scale_by_scheduler(plan(), GROUPS)
    state = jax.vmap(lambda _: tx.init(PARAMS))(jnp.arange(3))
    before = state.hyperparams["plan"]

    def body(state, _):
        return jax.vmap(lambda state: tx.update(PARAMS, state)[1])(state), None

    after = jax.lax.scan(body, state, None, length=4)[0].hyperparams["plan"]
    assert (after.shape, after.dtype, after.weak_type) == (before.shape, before.dtype, False)
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("updates", [0, 30, 61])  # epoch 6 is that of update 60, the 61st
@pytest.mark.parametrize(
    "branch",
    [
        cooldown(plan(), at=6, length=2),
        rewarm(plan(), at=6, length=2),
        Extension(plan(), at=6, end=10, new_end=20),
        cooldown(Extension(plan(), at=7, end=10, new_end=20), at=6, length=2),
    ],
)
def test_a_state_of_the_old_schedule_is_one_of_its_branch_up_to_where_it_leaves(branch, updates):
    _, state = trained(plan(), updates, steps_per_epoch=10)
    check_resumed(state, branch, steps_per_epoch=10)
    check_resumed(state, PerUpdate(branch, 10))


def test_branches_in_updates_of_a_plan_in_epochs_are_recognised():
    _, state = trained(plan(), 25, steps_per_epoch=10)
    check_resumed(state, cooldown(PerUpdate(plan(), 10), at=25, length=5))


def test_an_old_schedule_that_went_on_is_told_where_to_leave():
    """Update 64 is in epoch 6.4, where it is at 0.55 of the cosine's 8 epochs."""
    _, state = trained(plan(), 65, steps_per_epoch=10)
    rate = 0.5 * np.cos(np.pi / 2 * 0.55) ** 2
    expected = re.escape(
        "plan: it is of the WarmupCosineSchedule, which this Extension leaves with at=5, and the "
        "WarmupCosineSchedule went on to epoch 7. To leave it there, build one with at=7. The "
        f"rates at the latest update, number 64: group 0 {rate:.6g} -> "
    )
    with pytest.warns(UserWarning, match=expected):
        check_resumed(state, Extension(plan(), 5, 10, 20), steps_per_epoch=10)
    check_resumed(state, Extension(plan(), 7, 10, 20), steps_per_epoch=10)


def test_a_branch_of_another_schedule_is_another_plan():
    _, state = trained(plan(), 25, steps_per_epoch=10)
    named = r"class \(WarmupCosineSchedule -> Branch\) changed"
    with pytest.warns(UserWarning, match=named):
        check_resumed(state, cooldown(plan(20), at=6, length=2), steps_per_epoch=10)


def test_a_class_that_the_code_does_not_know_goes_without_its_name():
    _, state = trained(plan(), 1)
    saved = state[1].hyperparams["plan"].at[3].set(-5.0)
    with pytest.warns(UserWarning, match=r"class \(another -> WarmupCosineSchedule\) changed"):
        check_resumed(optax.tree_utils.tree_set(state, plan=saved), plan())


def two_parts():
    """Return two schedulers, and the state of an optimizer with a part for each."""
    schedulers = {"matrices": plan(), "others": StepLR([0.5, 0.25], 30)}
    parts = {
        name: scale_by_scheduler(scheduler, GROUPS, allow_unused=True)
        for name, scheduler in schedulers.items()
    }
    tx = optax.multi_transform(parts, {"body": "matrices", "head": "others"})
    return schedulers, jax.jit(tx.update)(PARAMS, tx.init(PARAMS))[1]


def test_each_scheduler_of_an_optimizer_with_two_finds_its_state():
    schedulers, state = two_parts()
    for name, scheduler in schedulers.items():
        check_resumed(state, scheduler)
        assert rates_by_name(state.inner_states[name], scheduler)
    with pytest.raises(ValueError, match=r"2 states .*opt_state.inner_states\['matrices'\]"):
        rates_by_name(state, schedulers["others"])
    with pytest.warns(UserWarning, match=r"in each of its 2 states, .*\['matrices'\]") as caught:
        check_resumed(state, plan(20))
    assert len(caught) == 2
    with pytest.warns(UserWarning, match=r"plan: total_steps \(10 -> 20\) changed"):
        check_resumed(state.inner_states["matrices"], plan(20))


def test_one_warning_says_it_all():
    _, state = trained(plan(), 5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_resumed(state, plan(20, eta_min=0.1))
    assert len(caught) == 1
