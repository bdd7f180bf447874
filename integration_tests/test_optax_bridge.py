"""as_optax and scale_by_scheduler among optax's own transformations, and in braintools.

The schedule of most tests has two stages of two epochs for each of two groups, and rates that
are powers of two, so that what is expected is exact and can be read off.
"""

import copy
import pickle

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import brainsched
from brainsched import PiecewiseConstantSchedule, scale_by_scheduler

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


@pytest.mark.parametrize(
    "given", [lambda s: s.as_optax(), lambda s: scale_by_scheduler(s, {"*": 0})]
)
def test_steps_of_a_scheduler_whose_schedule_optax_has_are_warned_of_once(given):
    scheduler = brainsched.StepLR(0.5, 1, 0.5)
    given(scheduler)
    with pytest.warns(UserWarning, match=r"steps of this StepLR change no rate: optax.*rates_by_n"):
        scheduler.step()
    scheduler.step()
    assert scheduler.epoch == 2
    copy.deepcopy(scheduler).step()  # which optax was not given


def test_a_count_below_0_is_one_of_0_on_the_host_too():
    """optax.join_schedules asks each schedule for its rate before its turn, too."""
    schedule = brainsched.ExponentialLR(0.5, gamma=0.5).as_optax()
    joined = optax.join_schedules([optax.constant_schedule(4.0), schedule], [10])
    assert [float(joined(count)) for count in (3, 9, 10, 11, 12)] == [4.0, 4.0, 0.5, 0.25, 0.125]
    assert float(jax.jit(joined)(3)) == 4.0
    for count in (-7, np.int8(-7), np.array([-7]), jnp.asarray(-7)):
        assert schedule(count) == jax.jit(schedule)(count) == 0.5


def test_a_count_beyond_31_bits_is_the_largest():
    last = 2**31 - 1
    schedule = PiecewiseConstantSchedule(0.5, [last], [1.0, 0.5]).as_optax()
    for count in (2**31, 2**40, np.uint32(2**31 + 5), np.uint64(2**63), np.array([2**32 - 1])):
        assert schedule(count) == 0.25
    for count in (2**31, 2**32 - 1):
        assert jax.jit(schedule)(jnp.uint32(count)) == 0.25
        assert jax.vmap(schedule)(jnp.full(2, count, jnp.uint32)).tolist() == [0.25, 0.25]
    later = PiecewiseConstantSchedule(0.5, [last], [1.0, 0.5], last_epoch=5).as_optax()
    assert later(last) == jax.jit(later)(last) == 0.25
    latest = PiecewiseConstantSchedule(0.5, [last], [1.0, 0.5], last_epoch=last).as_optax()
    assert latest(0) == jax.jit(latest)(0) == 0.25


def test_a_schedule_has_a_name_a_repr_and_pickles():
    scheduler = brainsched.CosineAnnealingLR({"body": 0.1, "head": 0.3}, T_max=90)
    schedule = scheduler.as_optax("head", steps_per_epoch=7)
    assert schedule.__name__ == "CosineAnnealingLR"
    assert repr(schedule) == (
        "CosineAnnealingLR(base_lr={'body': 0.1, 'head': 0.3}, T_max=90, eta_min=0.0)"
        ".as_optax(group='head', steps_per_epoch=7)"
    )
    for copied in (pickle.loads(pickle.dumps(schedule)), copy.deepcopy(schedule)):
        assert copied(100) == schedule(100) == scheduler.as_optax(1, 7)(100)
        assert repr(copied) == repr(schedule)
    assert repr(scheduler.as_optax(1, 2)).endswith(".as_optax(group=1, steps_per_epoch=2)")
    assert repr(scheduler.as_optax(0)).endswith(".as_optax()")


def test_each_group_of_an_optimizer_has_its_schedule_and_none_sees_later_groups():
    scheduler = PiecewiseConstantSchedule(0.5, [2], [1.0, 0.5])
    optimizer = braintools.optim.Adam(lr=scheduler)
    optimizer.register_trainable_weights({"a": brainstate.ParamState(jnp.ones(1))})
    optimizer.add_param_group({"b": brainstate.ParamState(jnp.ones(1))}, lr=0.125)
    schedule = scheduler.as_optax(group=1)
    with pytest.raises(ValueError, match="group must be from 0 to 1, got 2"):
        scheduler.as_optax(group=2)
    optimizer.add_param_group({"c": brainstate.ParamState(jnp.ones(1))}, lr=4.0)
    assert [float(schedule(count)) for count in (1, 2)] == [0.125, 0.0625]
    assert scheduler.as_optax(group=2)(2) == 2.0
    assert scheduler.optimizer is optimizer


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


@pytest.mark.parametrize("steps_per_epoch", [1, 2, 300, 2**31 - 1])
@pytest.mark.parametrize("count", [np.uint8(255), 2**31 - 1, jnp.int32(2**31 - 1)])
def test_large_counts_do_not_overflow(count, steps_per_epoch):
    boundary = max(1, int(count) // steps_per_epoch)
    schedule = PiecewiseConstantSchedule(0.5, [boundary], [1.0, 0.5]).as_optax(0, steps_per_epoch)
    reached = int(count) >= boundary * steps_per_epoch
    assert float(schedule(count)) == float(jax.jit(schedule)(count)) == (0.25 if reached else 0.5)


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


def test_init_and_update_agree_on_structure_and_types_so_that_one_program_serves(compilations):
    tx = scale_by_scheduler(two_groups(), GROUPS)
    update = jax.jit(tx.update)
    state = jax.jit(tx.init)(params())
    del compilations[:]
    for _ in range(4):
        _, state = update(params(), state)
    assert len(compilations) == 1


@pytest.mark.parametrize(
    "groups",
    [
        {"head": 1, "body/*": 0},
        {"head": 1, "*": 0},
        {"*/bias": np.int64(0), "body/kern?l": 0, "*": 1},
        lambda path: {"body/kernel": 0, "body/bias": 0, "head": 1}[path],
        lambda path: int(path.startswith("head")),
    ],
)
def test_groups_are_patterns_of_which_the_first_counts_or_a_function_of_the_path(groups):
    ((found,), _) = applied(scale_by_scheduler(two_groups(), groups), params(), 1)
    assert found["body"]["kernel"].tolist() == [-BODY[0]] * 2
    assert found["body"]["bias"] == -BODY[0]
    assert found["head"].tolist() == [-HEAD[0]] * 3


def test_paths_join_keys_indices_and_attributes_with_slashes():
    seen = []

    def group(path):
        seen.append(path)
        return 0

    tree = {"layers": [jnp.ones(1), (jnp.ones(1), jnp.ones(1))], "a": optax.TraceState(jnp.ones(1))}
    tx = scale_by_scheduler(two_groups(), group, allow_unused=True)
    tx.update(tree, tx.init(tree))
    assert seen[:4] == seen[4:]
    assert sorted(seen[:4]) == ["a/trace", "layers/0", "layers/1/0", "layers/1/1"]


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


@pytest.mark.parametrize(
    "scheduler",
    [
        two_groups(),
        brainsched.StepLR([0.5, 0.25]),
        brainsched.SequentialLR([brainsched.StepLR(0.5), brainsched.StepLR([0.5, 0.25])], [3]),
        PiecewiseConstantSchedule(0.5, [2], [[1.0, 1.0], [0.0, 1.0]]),
    ],
)
def test_one_rate_of_several_that_differ_is_asked_for_by_its_group(scheduler):
    with pytest.warns(UserWarning, match="the 2 groups of this .* group=0.* scale_by_scheduler"):
        first = scheduler.as_optax()
    assert first(5) == pickle.loads(pickle.dumps(first))(5) == scheduler.as_optax(group=0)(5)


def test_one_rate_of_several_that_are_equal_is_that_of_them_all():
    assert brainsched.StepLR([0.5, 0.5]).as_optax()(0) == 0.5
    assert brainsched.StepLR({"body": 0.5, "head": 0.5}).as_optax()(0) == 0.5
    assert PiecewiseConstantSchedule(0.5, [2], [[1.0], [0.0]]).as_optax()(0) == 0.5


def test_a_schedule_of_optax_in_the_place_of_a_scheduler_is_told_how_to_become_one():
    schedule = optax.cosine_decay_schedule(0.5, 10)
    message = r"got function: .* LambdaLR\(base_lr, schedule\)"
    with pytest.raises(TypeError, match=message):
        scale_by_scheduler(schedule, {"*": 0})
    with pytest.raises(TypeError, match=message):
        brainsched.SequentialLR([schedule, brainsched.StepLR()], [5])
    rates = brainsched.LambdaLR(1.0, schedule).as_optax()
    theirs = [schedule(n) for n in range(11)]  # calculated in float32
    np.testing.assert_allclose([rates(n) for n in range(11)], theirs, rtol=1e-5)


# Bad input


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        ({"head": 1}, ValueError, r"no group claims the parameter 'body/bias'.*'\*' cl"),
        (lambda path: None, ValueError, "no group claims the parameter 'body/bias'"),
        (lambda path: 2, ValueError, "group of 'body/bias' must be from 0 to 1, got 2"),
        (lambda path: -1, ValueError, "group of 'body/bias' must be from 0 to 1, got -1"),
        (lambda path: True, TypeError, "group of 'body/bias' must be an integer, got True"),
        (lambda path: 1.0, TypeError, "group of 'body/bias' must be an integer, got 1.0"),
    ],
)
def test_unclaimed_or_impossible_group_raises_and_names_the_path(groups, error, message):
    tx = scale_by_scheduler(two_groups(), groups)
    with pytest.raises(error, match=message):
        tx.init(params())
    state = scale_by_scheduler(two_groups(), GROUPS).init(params())
    with pytest.raises(error, match=message):
        jax.jit(tx.update)(params(), state)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0.1, GROUPS), TypeError, "scheduler must be an LRScheduler, got float"),
        ((two_groups(), "head"), TypeError, "groups must be a function .*'head'"),
        ((two_groups(), {0: 1}), TypeError, "groups must have patterns of paths as keys, got 0"),
        ((two_groups(), {"head": 2}), ValueError, r"groups\['head'\] must be from 0 to 1, got 2"),
        (
            (two_groups(), {"head": "1"}),
            ValueError,
            r"it gives none, .* from 0 to 1, or ba",
        ),
        ((two_groups(), {"head": []}), ValueError, r"groups\['head'\].* got none"),
        ((two_groups(), {"head": [0, 2]}), ValueError, r"groups\['head'\]\[1\] must be from 0"),
        ((two_groups(), {"head": 0.5}), TypeError, r"groups\['head'\] must be an integer, got 0.5"),
        ((two_groups(), GROUPS, 0), ValueError, "steps_per_epoch must be .* from 1 to .*, got 0"),
        ((two_groups(), GROUPS, -1), ValueError, "steps_per_epoch must be .* from 1 .*, got -1"),
        ((two_groups(), GROUPS, 2**31), ValueError, "steps_per_epoch must be .* to 2147483647"),
        ((two_groups(), GROUPS, 2.0), TypeError, "steps_per_epoch must be an integer, got 2.0"),
        ((two_groups(), GROUPS, True), TypeError, "steps_per_epoch must be an integer, got True"),
        ((two_groups(), GROUPS, 1, -1), ValueError, "last_epoch must not be negative"),
        ((two_groups(), GROUPS, 2**30, 2), ValueError, r"last_epoch \* steps_per_epoch must be at"),
    ],
)
def test_bad_arguments_raise_at_once(arguments, error, message):
    with pytest.raises(error, match=message):
        scale_by_scheduler(*arguments)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"group": 2}, ValueError, "group must be from 0 to 1, got 2.*one for each entry of base"),
        ({"group": -1}, ValueError, "group must be from 0 to 1, got -1"),
        ({"group": 0.0}, TypeError, "group must be an integer, got 0.0"),
        ({"group": "head"}, ValueError, "group must be .* a name that base_lr gives.*'head'"),
        (
            {"group": 100},
            ValueError,
            r"epochs of 100 updates, write as_optax\(steps_per_epoch=100\)",
        ),
        ({"steps_per_epoch": 0}, ValueError, "steps_per_epoch must be an integer from 1 to"),
        ({"staircase": 1}, TypeError, "staircase must be True or False, got 1"),
        ({"last_epoch": -1}, ValueError, "last_epoch must not be negative"),
        ({"steps_per_epoch": "1"}, TypeError, "steps_per_epoch must be an integer"),
    ],
)
def test_bad_arguments_of_as_optax_raise_at_once(arguments, error, message):
    with pytest.raises(error, match=message):
        two_groups().as_optax(**arguments)


def test_bad_counts_raise():
    schedule = two_groups().as_optax(group=0)
    for count in (1.0, jnp.float32(1), True, np.ones(2), jnp.ones(2)):
        with pytest.raises(TypeError, match="count must"):
            schedule(count)


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


def test_braintools_optimizer_with_the_scheduler_as_lr_too_warns_of_two_positions():
    scheduler = two_groups()
    tx = optax.chain(optax.identity(), scale_by_scheduler(scheduler, GROUPS))
    with pytest.warns(UserWarning, match="OptaxOptimizer does not read its learning rate"):
        moves, _ = parameter_moves(tx, lr=scheduler)
    assert [moved["head"][0] for moved in moves] == [-rate for rate in HEAD]


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
