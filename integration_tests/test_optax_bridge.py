"""as_optax and scale_by_scheduler among optax's own transformations, and in braintools.

The schedule of most tests has two stages of two epochs for each of two groups, and rates that
are powers of two, so that what is expected is exact and can be read off.
"""

import copy
import pickle

import brainstate
import braintools
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import brainsched
from brainsched import PiecewiseConstantSchedule, StepLR, scale_by_scheduler

BODY = [0.5, 0.5, 0.25, 0.25]  # the rates of group 0 and group 1 at the first four epochs
HEAD = [0.125, 0.125, 1.0, 1.0]
GROUPS = {"head*": 1, "*": 0}


def two_groups():
    return PiecewiseConstantSchedule(0.5, [2], [[1.0, 0.25], [0.5, 2.0]])


def params():
    return {"body": {"kernel": jnp.ones(2), "bias": jnp.ones(())}, "head": jnp.ones(3)}


def applied(tx, updates, steps, state=None):
    """Return what ``tx`` makes of the same ``updates`` in each of ``steps`` steps, compiled."""
    state = tx.init(updates) if state is None else state
    update = jax.jit(tx.update)
    result = []
    for _ in range(steps):
        scaled, state = update(updates, state, updates)
        result.append(scaled)
    return result, state


# as_optax


@pytest.mark.parametrize("staircase", [False, True])
def test_schedule_gives_the_positive_rate_of_the_epoch_that_the_count_is_in(staircase):
    schedule = two_groups().as_optax(group=1, steps_per_epoch=3, staircase=staircase)
    expected = [0.125] * 6 + [1.0] * 4
    assert [float(schedule(count)) for count in range(10)] == expected
    assert [float(schedule(np.int32(count))) for count in range(10)] == expected
    assert [float(schedule(jnp.asarray(count))) for count in range(10)] == expected
    assert jax.vmap(schedule)(jnp.arange(10)).tolist() == expected
    _, scanned = jax.lax.scan(lambda count, _: (count + 1, schedule(count)), 0, length=10)
    assert scanned.tolist() == expected
    assert scanned.dtype == np.float32
    assert jax.jit(schedule)(7).shape == ()


def test_a_warmup_rises_at_every_update_and_a_cosine_falls():
    """The epoch of update n is n / 100: formulas of a real epoch, by hand, in float64."""
    schedule = brainsched.WarmupCosineSchedule(1e-3, 5, 90).as_optax(steps_per_epoch=100)
    epoch = np.arange(9000) / 100
    by_hand = np.where(epoch < 5, epoch / 5, np.cos(np.pi / 2 * (epoch - 5) / 85) ** 2) * 1e-3
    rates = jax.vmap(schedule)(jnp.arange(9000))
    np.testing.assert_allclose(rates, by_hand, rtol=3e-7, atol=1e-12)
    assert (np.diff(rates)[:500] > 0).all()
    assert (np.diff(rates)[500:] <= 0).all()
    assert len(set(rates.tolist())) > 8000
    np.testing.assert_array_equal(rates, schedule(np.arange(9000)))


def test_stairs_hold_the_rate_of_each_whole_epoch():
    scheduler = brainsched.WarmupCosineSchedule(1e-3, 5, 90)
    whole = np.repeat(scheduler.lr_at(range(90))[:, 0], 100)
    stairs = scheduler.as_optax(steps_per_epoch=100, staircase=True)
    np.testing.assert_array_equal(jax.vmap(stairs)(jnp.arange(9000)), whole)
    tx = scale_by_scheduler(scheduler, {"*": 0}, 100, staircase=True)
    updates, _ = applied(tx, jnp.ones(()), 301)
    np.testing.assert_array_equal(updates, -whole[:301])


@pytest.mark.parametrize("steps_per_epoch", [3, 7, 49, 100, 391])
def test_stages_change_exactly_at_their_boundary(steps_per_epoch):
    """In float32, or by a product with the reciprocal, some would change an update off."""
    boundaries = list(range(1, 120))
    scheduler = PiecewiseConstantSchedule(1.0, boundaries, [1.0 + b for b in [0, *boundaries]])
    counts = jnp.arange(120 * steps_per_epoch)
    rates = jax.jit(jax.vmap(scheduler.as_optax(steps_per_epoch=steps_per_epoch)))(counts)
    np.testing.assert_array_equal(rates, 1.0 + np.asarray(counts) // steps_per_epoch)


def test_the_epoch_that_the_scheduler_was_built_with_is_where_both_ways_begin():
    scheduler = PiecewiseConstantSchedule(0.5, [4], [1.0, 0.5], last_epoch=3)
    scheduler.step(8)  # where it stands plays no part
    schedule = scheduler.as_optax(steps_per_epoch=2)
    assert [float(schedule(count)) for count in (0, 1, 2)] == [0.5, 0.5, 0.25]
    assert [float(jax.jit(schedule)(count)) for count in (0, 1, 2)] == [0.5, 0.5, 0.25]
    tx = scale_by_scheduler(scheduler, {"*": 0}, 2)
    assert tx.init(jnp.ones(())).count == 6
    assert [float(update) for update in applied(tx, jnp.ones(()), 3)[0]] == [-0.5, -0.5, -0.25]
    assert [float(scheduler.as_optax(last_epoch=e)(1)) for e in (0, 3, 8)] == [0.5, 0.25, 0.25]
    assert scale_by_scheduler(scheduler, {"*": 0}, 2, last_epoch=0).init(jnp.ones(())).count == 0
    assert scheduler.epoch == 8
    assert scheduler.get_last_lr() == [0.25]


def test_a_count_below_0_is_one_of_0_on_the_host_too():
    """optax.join_schedules asks each schedule for its rate before its turn, too."""
    schedule = brainsched.ExponentialLR(0.5, gamma=0.5).as_optax()
    joined = optax.join_schedules([optax.constant_schedule(4.0), schedule], [10])
    assert [float(joined(count)) for count in (3, 9, 10, 11, 12)] == [4.0, 4.0, 0.5, 0.25, 0.125]
    assert float(jax.jit(joined)(3)) == 4.0
    for count in (-7, np.int8(-7), np.array([-7]), jnp.asarray(-7)):
        assert schedule(count) == jax.jit(schedule)(count) == 0.5


@pytest.mark.parametrize("steps_per_epoch", [1, 2, 300, 2**31 - 1])
@pytest.mark.parametrize("count", [np.uint8(255), 2**31 - 1, jnp.int32(2**31 - 1)])
def test_large_counts_do_not_overflow(count, steps_per_epoch):
    boundary = max(1, int(count) // steps_per_epoch)
    schedule = PiecewiseConstantSchedule(0.5, [boundary], [1.0, 0.5]).as_optax(0, steps_per_epoch)
    reached = int(count) >= boundary * steps_per_epoch
    assert float(schedule(count)) == float(jax.jit(schedule)(count)) == (0.25 if reached else 0.5)


def test_a_count_may_be_any_real_number_on_the_host_and_on_a_device():
    """optax takes floats; an epoch is real, and 2.5 is half way from 2 to 3."""
    schedule = brainsched.WarmupScheduler(1.0, warmup_epochs=4).as_optax()
    for count in (2.5, np.float64(2.5), jnp.float32(2.5), jnp.bfloat16(2.5), np.array(2.5)):
        assert schedule(count) == 0.625
    assert schedule(np.array([0, 2.5])).tolist() == schedule(jnp.array([0, 2.5])).tolist()
    with pytest.raises(TypeError, match="count must hold real numbers"):
        schedule(jnp.array(True))


def test_an_epoch_need_not_be_a_whole_number_of_updates():
    """With 2.5 updates an epoch, the stage at epoch 2 begins with update 5, that at 3 with 8."""
    scheduler = PiecewiseConstantSchedule(1.0, [2, 3], [1.0, 0.5, 0.25])
    expected = [1.0] * 5 + [0.5] * 3 + [0.25]
    schedule = scheduler.as_optax(steps_per_epoch=2.5)
    assert [float(schedule(n)) for n in range(9)] == expected
    assert jax.jit(jax.vmap(schedule))(jnp.arange(9)).tolist() == expected
    updates, _ = applied(scale_by_scheduler(scheduler, {"*": 0}, 2.5), jnp.ones(()), 9)
    assert [-float(update) for update in updates] == expected


@pytest.mark.parametrize(("examples", "batch"), [(1000, 3), (50_000, 96), (1797, 13)])
def test_examples_divided_by_the_batch_size_change_stages_at_the_first_update_of_an_epoch(
    examples, batch
):
    """The epoch of update n is n * batch / examples, a fraction: by integers, at every update."""
    boundaries = list(range(1, 40))
    scheduler = PiecewiseConstantSchedule(1.0, boundaries, [1.0 + b for b in [0, *boundaries]])
    counts = np.arange(39 * examples // batch)
    rates = scheduler.as_optax(steps_per_epoch=examples / batch)
    expected = 1 + counts * batch // examples
    np.testing.assert_array_equal(rates(counts), expected)
    np.testing.assert_array_equal(jax.jit(rates)(jnp.asarray(counts)), expected)


def test_a_run_may_be_taken_over_in_mid_epoch():
    scheduler = brainsched.WarmupScheduler(1.0, warmup_epochs=2)
    schedule = scheduler.as_optax(steps_per_epoch=4, last_epoch=0.75)
    assert [float(schedule(n)) for n in (0, 1, 5)] == [0.375, 0.5, 1.0]
    for last_epoch, count in [(0.75, 3), (0.8, 4), (0.0, 0)]:
        tx = scale_by_scheduler(scheduler, {"*": 0}, 4, last_epoch)
        assert tx.init(jnp.ones(())).count == count
    # 0.07 * 100 is 7.000000000000001 in float64.
    assert scale_by_scheduler(scheduler, {"*": 0}, 100, 0.07).init(jnp.ones(())).count == 7


@pytest.mark.parametrize("make", [optax.adamw, lambda s: optax.inject_hyperparams(optax.sgd)(s)])
def test_forgotten_brackets_are_named(make):
    def trained(params):
        tx = make(StepLR(0.1).as_optax)
        return tx.update(params, tx.init(params), params)

    for run in (trained, jax.jit(trained)):
        with pytest.raises(TypeError, match=r"write scheduler\.as_optax\(\)"):
            run(jnp.ones(()))


class Counted(brainsched.LRScheduler):
    """Counts how often its formula runs for compiled code."""

    runs = 0

    def formula(self, epoch, base_lrs, xp):
        type(self).runs += xp is jnp
        return base_lrs * 0.5**epoch


def test_outside_of_compiled_code_a_formula_is_compiled_once_and_kept(compilations):
    scheduler = Counted(1.0)
    schedule, tx = scheduler.as_optax(), scale_by_scheduler(scheduler, {"*": 0})
    state = tx.init(params())
    schedule(jnp.int32(0))
    _, state = tx.update(params(), state)
    runs = Counted.runs
    del compilations[:]
    for count in range(1, 5):
        assert float(schedule(jnp.int32(count))) == 0.5**count
        updates, state = tx.update(params(), state)
        assert updates["head"].tolist() == [-(0.5**count)] * 3
    assert Counted.runs == runs
    assert compilations == []


def test_a_schedule_has_a_repr_and_pickles():
    scheduler = brainsched.CosineAnnealingLR({"body": 0.1, "head": 0.3}, T_max=90)
    schedule = scheduler.as_optax("head", steps_per_epoch=7)
    assert repr(schedule).startswith(
        "CosineAnnealingLR(base_lr={'body': 0.1, 'head': 0.3}, T_max=90"
    )
    assert repr(schedule).endswith(").as_optax(group='head', steps_per_epoch=7)")
    for copied in (pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule)):
        assert copied(100) == schedule(100) == scheduler.as_optax(1, 7)(100)
        assert repr(copied) == repr(schedule)
    assert repr(scheduler.as_optax(0)).endswith(".as_optax()")


def test_each_group_of_an_optimizer_has_its_schedule_and_none_sees_later_groups():
    scheduler = PiecewiseConstantSchedule(0.5, [2], [1.0, 0.5])
    optimizer = braintools.optim.Adam(lr=scheduler)
    optimizer.register_trainable_weights({"a": brainstate.ParamState(jnp.ones(1))})
    optimizer.add_param_group({"b": brainstate.ParamState(jnp.ones(1))}, lr=0.125)
    schedule = scheduler.as_optax(group=1)
    with pytest.raises(ValueError, match=r"group must be one of the 2 param groups .*, got 2"):
        scheduler.as_optax(group=2)
    optimizer.add_param_group({"c": brainstate.ParamState(jnp.ones(1))}, lr=4.0)
    assert [float(schedule(count)) for count in (1, 2)] == [0.125, 0.0625]
    assert scheduler.as_optax(group=2)(2) == 2.0


@pytest.mark.parametrize(
    "scheduler",
    [
        two_groups(),
        StepLR([0.5, 0.25]),
        PiecewiseConstantSchedule(0.5, [2], [[1.0, 1.0], [0.0, 1.0]]),
    ],
)
def test_one_rate_of_several_that_differ_is_asked_for_by_its_group(scheduler):
    with pytest.warns(UserWarning, match="the rates of the 2 groups differ. Name a group, .*scale"):
        first = scheduler.as_optax()
    assert first(5) == pickle.loads(pickle.dumps(first))(5) == scheduler.as_optax(group=0)(5)


@pytest.mark.parametrize(
    "given", [lambda s: s.as_optax(), lambda s: scale_by_scheduler(s, {"*": 0})]
)
def test_a_scheduler_that_is_drawn_or_stepped_beside_its_bridge_is_silent(given):
    scheduler = StepLR(0.5, 1, 0.5)
    given(scheduler)
    for _ in range(3):
        scheduler.step()
    assert scheduler.lr_at([0, 3]).ravel().tolist() == [0.5, 0.0625]


def test_one_rate_of_several_that_are_equal_is_that_of_them_all():
    assert brainsched.StepLR([0.5, 0.5]).as_optax()(0) == 0.5
    assert brainsched.StepLR({"body": 0.5, "head": 0.5}).as_optax()(0) == 0.5
    assert PiecewiseConstantSchedule(0.5, [2], [[1.0], [0.0]]).as_optax()(0) == 0.5


@pytest.mark.parametrize(
    "scheduler",
    [
        PiecewiseConstantSchedule([0.1, 0.3], [3, 70], [1.0, 0.1, 0.01]),
        brainsched.CosineAnnealingLR([0.1, 0.3], T_max=90),
        brainsched.WarmupCosineSchedule([0.1, 0.3], warmup_steps=7, total_steps=90),
        brainsched.LambdaLR([0.1, 0.3], [lambda t: 0.9**t, lambda t: 1 / (1 + t)]),
        PiecewiseConstantSchedule(jnp.array([0.1, 0.3]), [3, 70], [1.0, 0.1, 0.01]),
    ],
    ids=["piecewise", "cosine", "warm-up", "a function for each group", "on a device"],
)
def test_compiled_rates_have_the_bits_of_brainstates_compiled_steps(scheduler):
    def stepped(epoch):
        scheduler.step(epoch)
        return jnp.stack(scheduler.get_last_lr())

    under_brainstate = brainstate.transform.for_loop(stepped, jnp.arange(100))
    tx = scale_by_scheduler(scheduler, GROUPS)
    ones = {"body": jnp.ones(()), "head": jnp.ones(())}

    def update(state, _):
        scaled, state = tx.update(ones, state)
        return state, (scaled, state.hyperparams["learning_rate"])

    _, (scaled, logged) = jax.lax.scan(update, tx.init(ones), length=100)
    np.testing.assert_array_equal(logged, under_brainstate)
    for group, name in enumerate(["body", "head"]):
        np.testing.assert_array_equal(-scaled[name], under_brainstate[:, group])
        schedule = scheduler.as_optax(group)
        np.testing.assert_array_equal(
            jax.vmap(schedule)(jnp.arange(100)), under_brainstate[:, group]
        )


def test_rates_may_be_traced_and_differentiated():
    def moved(base_lr):
        scheduler = PiecewiseConstantSchedule(base_lr, [2], [1.0, 0.5])
        tx = optax.chain(optax.identity(), scale_by_scheduler(scheduler, {"*": 0}, 2))
        value, state = jnp.float32(0), tx.init(jnp.float32(0))
        for _ in range(6):
            update, state = tx.update(jnp.float32(1), state)
            value += update
        return value + scheduler.as_optax(steps_per_epoch=2)(5)

    rates = jnp.array([1.0, 2.0])
    # Four updates at the base rate, two at half of it, and one rate of the second stage.
    assert jax.jit(jax.vmap(moved))(rates).tolist() == [-4.5, -9.0]
    assert jax.grad(moved)(1.0) == -4.5


@pytest.mark.parametrize("base_lr", [0.5, jnp.float32(0.5)], ids=["host", "device"])
def test_both_ways_can_be_built_inside_a_compiled_function(base_lr):
    scheduler = PiecewiseConstantSchedule(base_lr, [2], [1.0, 0.5])

    @jax.jit
    def rate_and_update(count):
        tx = scale_by_scheduler(scheduler, {"*": 0})
        update, _ = tx.update(jnp.float32(1), tx.init(jnp.float32(1))._replace(count=count))
        return scheduler.as_optax()(count), update

    assert rate_and_update(1) == (0.5, -0.5)
    assert rate_and_update(2) == (0.25, -0.25)
    assert scheduler.get_last_lr() == [0.5]


def test_one_line_replaces_optax_piecewise_constant_schedule():
    theirs = optax.piecewise_constant_schedule(0.5, {2: 0.5, 5: 0.25})
    ours = PiecewiseConstantSchedule(0.5, [2, 5], [1.0, 0.5, 0.125]).as_optax()
    for factory in (optax.sgd, optax.adamw, optax.inject_hyperparams(optax.adam)):
        (expected, _), (found, state) = (applied(factory(s), params(), 8) for s in (theirs, ours))
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert state.hyperparams["learning_rate"] == 0.5 * 0.125


# The transformation


def test_each_update_is_scaled_by_minus_the_rate_of_its_group():
    updates, state = applied(scale_by_scheduler(two_groups(), GROUPS), params(), 4)
    for step, found in enumerate(updates):
        assert found["body"]["kernel"].tolist() == [-BODY[step]] * 2
        assert found["body"]["bias"] == -BODY[step]
        assert found["head"].tolist() == [-HEAD[step]] * 3
    assert state.count == 4


def test_state_holds_the_count_and_the_rates_of_the_latest_update():
    tx = optax.chain(optax.scale_by_adam(), scale_by_scheduler(two_groups(), GROUPS))
    state = tx.init(params())
    assert optax.tree_utils.tree_get(state, "learning_rate").tolist() == [BODY[0], HEAD[0]]
    for step in range(4):
        _, state = jax.jit(tx.update)(params(), state)
        rates = optax.tree_utils.tree_get(state, "learning_rate")
        assert rates.tolist() == [BODY[step], HEAD[step]]
        assert rates.dtype == np.float32
        position = optax.tree_utils.tree_get(state, "ScaleBySchedulerState").count
        assert position == step + 1
        assert position.dtype == np.int32


def test_the_state_of_one_group_holds_four_scalars_which_a_loop_can_log():
    state = scale_by_scheduler(StepLR(0.5, 1, 0.5), {"*": 0}).init(params())
    assert [leaf.shape for leaf in jax.tree.leaves(state)] == [()] * 4
    logged = {name: float(value) for name, value in state.hyperparams.items()}
    assert logged["learning_rate"] == 0.5
    assert logged["learning_rate_scale"] == 1.0


def test_a_parameter_adds_no_more_to_a_program_than_under_one_rate_for_all():
    def equations(tx, leaves):
        tree = {f"{group}/{i}": jnp.ones(2) for group in range(10) for i in range(leaves)}
        return len(jax.make_jaxpr(tx.update)(tree, tx.init(tree)).jaxpr.eqns)

    ours = scale_by_scheduler(StepLR(list(range(1, 11))), lambda path: int(path.split("/")[0]))
    theirs = optax.scale_by_learning_rate(0.5)
    added = [equations(tx, 40) - equations(tx, 20) for tx in (ours, theirs)]
    assert added[0] <= added[1]


def test_behind_an_optimizer_with_a_minus_sign_the_sign_is_kept():
    tx = optax.chain(optax.sgd(1.0), scale_by_scheduler(two_groups(), GROUPS, flip_sign=False))
    updates, _ = applied(tx, params(), 3)
    assert [float(found["body"]["bias"]) for found in updates] == [-rate for rate in BODY[:3]]
    assert [float(found["head"][0]) for found in updates] == [-rate for rate in HEAD[:3]]


def test_init_and_update_agree_on_structure_and_types_so_that_one_program_serves(compilations):
    tx = scale_by_scheduler(two_groups(), GROUPS)
    update = jax.jit(tx.update)
    state = jax.jit(tx.init)(params())
    del compilations[:]
    for _ in range(4):
        _, state = update(params(), state)
    assert len(compilations) == 1


def test_an_epoch_of_many_updates_and_a_later_first_epoch():
    tx = scale_by_scheduler(two_groups(), GROUPS, steps_per_epoch=3, last_epoch=1)
    assert tx.init(params()).count == 3
    updates, state = applied(tx, params(), 5)
    assert [float(u["body"]["bias"]) for u in updates] == [-0.5] * 3 + [-0.25] * 2
    assert state.count == 8


def test_scheduler_stays_as_it_was_and_what_happens_to_it_later_plays_no_part():
    scheduler = two_groups()
    saved = str(scheduler.state_dict())
    tx = scale_by_scheduler(scheduler, GROUPS)
    updates, state = applied(tx, params(), 1)
    assert str(scheduler.state_dict()) == saved
    scheduler.step(3)
    scheduler.apply(lambda rate: 7.0)
    updates, _ = applied(tx, params(), 1, state)
    assert updates[0]["head"].tolist() == [-HEAD[1]] * 3


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_updates_keep_their_type(dtype):
    updates = jax.tree.map(lambda leaf: (3 * leaf).astype(dtype), params())
    ((found,), _) = applied(scale_by_scheduler(two_groups(), GROUPS), updates, 1)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(dtype)}
    assert found["head"].tolist() == [-3 * HEAD[0]] * 3


def test_under_x64_the_rates_are_float64_and_updates_keep_their_type():
    with jax.enable_x64(True):
        scheduler = PiecewiseConstantSchedule([0.1, 0.3], [2], [1.0, 0.1])
        updates = {"body": jnp.ones(1, jnp.float32), "head": jnp.ones(1, jnp.float64)}
        (found, state) = applied(scale_by_scheduler(scheduler, GROUPS), updates, 3)
        rates = state.hyperparams["learning_rate"]
        assert rates.dtype == np.float64
        np.testing.assert_array_equal(rates, np.array([0.1, 0.3]) * 0.1)
        assert found[2]["body"].dtype == np.float32
        assert found[2]["head"].dtype == np.float64
        assert state.count.dtype == np.int32


# Among optax's own


def test_in_a_chain_every_algorithm_has_the_groups_rates():
    for algorithm in (
        optax.scale_by_adam,
        optax.scale_by_rms,
        optax.scale_by_lion,
        lambda: optax.trace(0.9, nesterov=True),
        lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.add_decayed_weights(0.1)),
    ):
        plain, _ = applied(algorithm(), params(), 4)
        scaled, _ = applied(
            optax.chain(algorithm(), scale_by_scheduler(two_groups(), GROUPS)), params(), 4
        )
        for step in range(4):
            rates = {"body": BODY[step], "head": HEAD[step]}
            expected = {
                name: jax.tree.map(lambda leaf, rate=rate: -rate * leaf, plain[step][name])
                for name, rate in rates.items()
            }
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), scaled[step], expected
            )


def ours(**options):
    return scale_by_scheduler(two_groups(), GROUPS, **options)


# Each wrapper with a state of its own, and how many of six updates reach what it wraps.
WRAPPERS = {
    "alone": (lambda: optax.chain(optax.scale_by_adam(), ours()), 6),
    "one group": (lambda: scale_by_scheduler(StepLR(0.5, 2, 0.5), {"*": 0}), 6),
    "a multiplier": (lambda: ours(multiplier=optax.trace(0.5)), 6),
    "legacy_state": (lambda: ours(legacy_state=True), 6),
    "MultiSteps": (lambda: optax.MultiSteps(ours(), 2).gradient_transformation(), 3),
    "apply_if_finite": (lambda: optax.apply_if_finite(ours(), 3), 6),
    "lookahead": (lambda: optax.lookahead(ours(), 2, 0.5), 6),
    "masked": (
        lambda: optax.masked(ours(allow_unused=True), {"body": True, "head": False}),
        6,
    ),
    "partition": (
        lambda: optax.partition(
            {name: ours(allow_unused=True) for name in ("slow", "fast")},
            {"body": {"kernel": "slow", "bias": "fast"}, "head": "fast"},
        ),
        6,
    ),
    "schedule_free": (
        lambda: optax.contrib.schedule_free(
            optax.chain(optax.scale_by_rms(), ours()), two_groups().as_optax(0)
        ),
        6,
    ),
    "inject_hyperparams": (
        lambda: optax.inject_hyperparams(
            lambda weight_decay: optax.chain(optax.add_decayed_weights(weight_decay), ours())
        )(weight_decay=StepLR(0.5, 2).as_optax()),
        6,
    ),
    "conditionally_transform": (
        lambda: optax.conditionally_transform(ours(), lambda step: step % 2 == 0),
        3,
    ),
}


@pytest.mark.parametrize(("make", "real"), WRAPPERS.values(), ids=WRAPPERS)
def test_under_every_wrapper_a_state_is_donated_scanned_pickled_and_restored(make, real):
    """However the six updates are run, the last state has the bits of a plain run."""
    tx, weights = make(), params()
    if make is WRAPPERS["lookahead"][0]:
        weights = optax.LookaheadParams.init_synced(weights)

    def update(state):
        return tx.update(params(), state, weights)[1]

    donating = jax.jit(update, donate_argnums=0)

    def run(state, updates):
        for _ in range(updates):
            state = donating(state)
        return state

    expected = tx.init(weights)
    for _ in range(6):
        expected = jax.jit(update)(expected)
    counts = [
        int(node.count) for node in jax.tree.leaves(expected, is_leaf=is_ours) if is_ours(node)
    ]
    assert set(counts) == {real}

    scanned = jax.jit(
        lambda state: jax.lax.scan(lambda s, _: (update(s), None), state, length=6)[0],
        donate_argnums=0,
    )
    half = run(tx.init(weights), 3)
    saved = flax.serialization.to_bytes(half)
    found = {
        "donated": run(tx.init(weights), 6),
        "initialised in compiled code": run(jax.jit(tx.init)(weights), 6),
        "scanned": scanned(tx.init(weights)),
        "pickled": run(pickle.loads(pickle.dumps(half)), 3),
        "restored": run(flax.serialization.from_bytes(tx.init(weights), saved), 3),
    }
    for state in found.values():
        assert jax.tree.structure(state) == jax.tree.structure(expected)  # type: ignore[operator]
        jax.tree.map(np.testing.assert_array_equal, state, expected)


def is_ours(node):
    return type(node).__name__ == "ScaleBySchedulerState"


def test_masked_parameters_are_left_alone_and_the_others_keep_their_paths():
    seen = set()

    def group(path):
        seen.add(path)
        return int(path == "head")

    mask = {"body": {"kernel": True, "bias": False}, "head": True}
    tx = optax.masked(scale_by_scheduler(two_groups(), group), mask)
    ((found,), _) = applied(tx, params(), 1)
    assert found["body"]["bias"] == 1.0
    assert found["body"]["kernel"].tolist() == [-BODY[0]] * 2
    assert found["head"].tolist() == [-HEAD[0]] * 3
    assert seen == {"body/kernel", "head"}


def test_parts_of_a_partition_each_have_their_own_groups():
    labels = {"body": {"kernel": "slow", "bias": "fast"}, "head": "fast"}
    tx = optax.partition(
        {
            "slow": scale_by_scheduler(two_groups(), {"body/kernel": 0}, allow_unused=True),
            "fast": scale_by_scheduler(two_groups(), {"head": 1, "body/bias": 0}),
        },
        labels,
    )
    updates, _ = applied(tx, params(), 4)
    for step, found in enumerate(updates):
        assert found["body"]["kernel"].tolist() == [-BODY[step]] * 2
        assert found["body"]["bias"] == -BODY[step]
        assert found["head"].tolist() == [-HEAD[step]] * 3


def test_under_multi_steps_the_schedule_advances_with_real_updates():
    tx = optax.MultiSteps(scale_by_scheduler(two_groups(), GROUPS), every_k_schedule=3)
    updates, _ = applied(tx, params(), 12)
    body = [float(found["body"]["bias"]) for found in updates]
    assert body == [0, 0, -0.5, 0, 0, -0.5, 0, 0, -0.25, 0, 0, -0.25]


def test_updates_that_are_not_finite_do_not_advance_the_schedule():
    tx = optax.apply_if_finite(scale_by_scheduler(two_groups(), GROUPS), max_consecutive_errors=9)
    state = tx.init(params())
    nan = jax.tree.map(lambda leaf: leaf * jnp.nan, params())
    for updates in (params(), nan, nan, params(), nan):
        found, state = jax.jit(tx.update)(updates, state)
    assert not found["head"].any()
    assert optax.tree_utils.tree_get(state, "ScaleBySchedulerState").count == 2
    found, state = jax.jit(tx.update)(params(), state)
    assert found["head"].tolist() == [-HEAD[2]] * 3


def test_many_runs_under_vmap_each_have_their_own_position():
    tx = scale_by_scheduler(two_groups(), GROUPS)
    states = tx.init(params())._replace(count=jnp.arange(4))
    axes = type(states)(0, None)
    found, states = jax.vmap(lambda state: tx.update(params(), state), in_axes=(axes,))(states)
    assert found["body"]["bias"].tolist() == [-rate for rate in BODY]
    assert states.hyperparams["learning_rate"].tolist() == np.array([BODY, HEAD]).T.tolist()


def test_compositions_serve_both_ways():
    first = PiecewiseConstantSchedule([1.0, 4.0], boundaries=[1], values=[1.0, 0.5])
    second = brainsched.ChainedScheduler(
        [brainsched.StepLR([1.0, 4.0], 1, 0.5), brainsched.ConstantLR([1.0, 1.0], 0.5, 1)]
    )
    composed = brainsched.SequentialLR([first, second], milestones=[3])
    expected = [1.0, 0.5, 0.5, 0.5, 0.5, 0.25]
    updates, _ = applied(scale_by_scheduler(composed, GROUPS), params(), 6)
    assert [float(found["body"]["bias"]) for found in updates] == [-rate for rate in expected]
    assert [float(found["head"][0]) for found in updates] == [-4 * rate for rate in expected]
    assert composed.as_optax(group=1)(4) == 2.0


def test_a_rate_that_depends_on_a_metric_is_refused():
    plateau = brainsched.ReduceLROnPlateau()
    for bridge in (plateau.as_optax, lambda: scale_by_scheduler(plateau, {"*": 0})):
        with pytest.raises(TypeError, match=r"metrics .* multiplier=optax.contrib.reduce_on_pl"):
            bridge()


# Bad input


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        ({"head": 1}, ValueError, r"no group claims the parameter 'body/bias'.*'\*' cl"),
        (lambda path: None, ValueError, "no group claims the parameter 'body/bias'"),
        (lambda path: 2, ValueError, "the group of 'body/bias' must be one of the 2 param groups"),
        (lambda path: "tail", ValueError, "of 'body/bias' must be one of the 2 .*, got 'tail'"),
        (lambda path: 0.5, ValueError, "group of 'body/bias' must be an integer, got 0.5"),
    ],
)
def test_unclaimed_or_impossible_group_raises_and_names_the_path(groups, error, message):
    tx = scale_by_scheduler(two_groups(), groups)
    with pytest.raises(error, match=message):
        tx.init(params())
    state = scale_by_scheduler(two_groups(), GROUPS).init(params())
    with pytest.raises(error, match=message):
        jax.jit(tx.update)(params(), state)


STRETCHED = brainsched.PerUpdate(StepLR(0.5), 10)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: scale_by_scheduler(0.1, GROUPS),  # type: ignore[arg-type]  # what is tested
            TypeError,
            "must be an LRScheduler, got float",
        ),
        (
            lambda: scale_by_scheduler(two_groups(), {"head": 2}),
            ValueError,
            r"groups\['head'\] must be one of the 2 param groups of the schedule, .*, got 2",
        ),
        (
            lambda: scale_by_scheduler(two_groups(), {"head": [0, -1]}),
            ValueError,
            r"groups\['head'\]\[1\] must be one of .*, got -1",
        ),
        (
            lambda: scale_by_scheduler(two_groups(), GROUPS, 0),
            ValueError,
            "steps_per_epoch must be above 0, got 0",
        ),
        (
            lambda: two_groups().as_optax(0, -2.5),
            ValueError,
            r"steps_per_epoch must be .*, got -2\.5",
        ),
        (lambda: two_groups().as_optax(0, "1"), TypeError, "steps_per_epoch must be a number"),
        (
            lambda: two_groups().as_optax(0, last_epoch=-1),
            ValueError,
            "last_epoch must be finite and not negative, got -1",
        ),
        (lambda: two_groups().as_optax("head"), ValueError, "group must be one of .* got 'head'"),
        (lambda: two_groups().as_optax(100), ValueError, "group must be one of .* got 100"),
        (
            lambda: STRETCHED.as_optax(steps_per_epoch=10),
            ValueError,
            "steps_per_epoch must be left out, as a PerUpdate counts updates",
        ),
        (
            lambda: scale_by_scheduler(brainsched.cooldown(STRETCHED, 500, 100), {"*": 0}, 10),
            ValueError,
            "steps_per_epoch must be left out, as a PerUpdate counts updates",
        ),
    ],
)
def test_bad_arguments_raise_at_once(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    "make",
    [
        optax.adamw,
        lambda s: optax.inject_hyperparams(optax.sgd)(learning_rate=s),
        lambda s: optax.sgd(optax.join_schedules([optax.constant_schedule(0.1), s], [0])),
        lambda s: optax.sgd(lambda count: s(count)),
    ],
)
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit, brainstate.transform.jit])
def test_a_scheduler_in_the_place_of_a_schedule_raises_and_names_as_optax(make, transform):
    def trained(params):
        tx = make(StepLR(0.1, 30))
        return tx.update(params, tx.init(params), params)[0]

    with pytest.raises(TypeError, match=r"scheduler\.as_optax\(\)"):
        transform(trained)(jnp.ones(()))


# In braintools


def parameter_moves(tx, steps=4, **options):
    """Return how far each step of braintools' optimizer moved its two parameters."""
    states = {name: brainstate.ParamState(jnp.zeros(2)) for name in ("body", "head")}
    optimizer = braintools.optim.OptaxOptimizer(tx=tx, **options)
    optimizer.register_trainable_weights(states)

    @brainstate.transform.jit
    def step():
        optimizer.step({name: jnp.array([1.0, -3.0]) for name in states})

    moves = []
    for _ in range(steps):
        before = {name: state.value for name, state in states.items()}
        step()
        moves.append({name: np.asarray(states[name].value - before[name]) for name in states})
    return moves, optimizer


@pytest.mark.parametrize(
    ("algorithm", "direction"),
    [
        (optax.identity, [-1.0, 3.0]),
        (optax.scale_by_sign, [-1.0, 1.0]),
        (optax.scale_by_adam, [-1.0, 1.0]),  # of a constant gradient: its sign
        (optax.scale_by_lion, [-1.0, 1.0]),
    ],
)
def test_braintools_optimizer_has_real_rates_for_each_group(algorithm, direction):
    tx = optax.chain(algorithm(), scale_by_scheduler(two_groups(), GROUPS))
    moves, optimizer = parameter_moves(tx)
    for step, moved in enumerate(moves):
        np.testing.assert_allclose(moved["body"], BODY[step] * np.array(direction), rtol=1e-4)
        np.testing.assert_allclose(moved["head"], HEAD[step] * np.array(direction), rtol=1e-4)
    rates = optax.tree_utils.tree_get(optimizer.opt_state.value, "learning_rate")
    assert rates.tolist() == [BODY[3], HEAD[3]]


def test_braintools_optimizer_resumes_at_the_count_of_its_checkpoint():
    tx = optax.chain(optax.scale_by_adam(), scale_by_scheduler(two_groups(), GROUPS))
    moves, _ = parameter_moves(tx)
    _, first = parameter_moves(tx, steps=2)
    states = {name: brainstate.ParamState(jnp.zeros(2)) for name in ("body", "head")}
    second = braintools.optim.OptaxOptimizer(tx=tx)
    second.register_trainable_weights(states)
    second.load_state_dict(first.state_dict())
    second.step({name: jnp.array([1.0, -3.0]) for name in states})
    np.testing.assert_allclose(states["head"].value, moves[2]["head"], rtol=1e-6)
