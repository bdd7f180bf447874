"""Plans that leave another one: cooled down, warmed up again, or stretched to another end."""

import math
import pickle
import warnings
from typing import Any

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from brainstate.transform import for_loop, jit
from hypothesis import given
from hypothesis import strategies as st

import brainsched
from brainsched import (
    WSD,
    Branch,
    ConstantLR,
    CosineAnnealingLR,
    CyclicLR,
    ExponentialLR,
    Extension,
    LRScheduler,
    MultiStepLR,
    PerUpdate,
    PiecewiseConstantSchedule,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
    WarmupCosineSchedule,
    cooldown,
    rewarm,
)
from schedule_strategies import MOST, composed, rates, single

LONG_RUN: dict[str, Any] = {
    "base_lr": 0.4,
    "warmup_steps": 10,
    "stay_steps": 10**6,
    "decay_steps": 1000,
}


def trunks(draw) -> LRScheduler:
    groups = draw(st.integers(1, 3))
    leaves = [leaf for name, leaf in single(groups).items() if name != "LambdaLR"]
    return draw(st.one_of(*leaves, composed(groups)))


def float32(rates) -> np.ndarray:
    return np.asarray(rates, np.float32)


SHARES = {
    "linear": lambda x: x,
    "cos": lambda x: (1 - math.cos(math.pi * x)) / 2,
    "sqrt": math.sqrt,
    "polynomial": lambda x: 1 - (1 - x) ** 3,
    "exponential": lambda x: (1 - 0.25**x) / 0.75,  # from 0.4 to 0.1
}


@pytest.mark.parametrize("strategy", SHARES)
def test_a_cooldown_falls_from_the_plateau_of_a_long_run(strategy):
    old = WSD(**LONG_RUN)
    scheduler = cooldown(old, 100, 40, eta_min=0.1, decay_strategy=strategy, power=3)
    by_hand = [0.04 * t if t < 10 else 0.4 for t in range(100)]
    by_hand += [0.4 - 0.3 * SHARES[strategy](since / 40) for since in range(41)]
    by_hand += [0.1] * 20
    np.testing.assert_allclose(scheduler.lr_at(range(161))[:, 0], by_hand, rtol=1e-7)
    assert scheduler.lr_at([10**6, 2**31 - 1]).ravel().tolist() == float32([0.1, 0.1]).tolist()


@pytest.mark.parametrize("strategy", SHARES)
def test_a_cooldown_of_a_long_run_is_the_run_with_that_length(strategy):
    """A WSD whose decay is cooldown's, and known from the start."""
    known = WSD(0.4, 10, 90, 40, 0.0, 0.1, strategy, power=3).lr_at(range(200))
    branched = cooldown(WSD(**LONG_RUN), 100, 40, 0.1, strategy, power=3).lr_at(range(200))
    np.testing.assert_array_equal(branched, known)


def test_rewarming_rises_to_each_groups_base_rate_and_decays_again():
    old = CosineAnnealingLR([0.4, 0.2], T_max=100, eta_min=0.04)
    again = cooldown(rewarm(old, 100, 10), at=110, length=90, eta_min=0.04, decay_strategy="cos")
    # The share of the way from 0.04 to the base rate, 0.4 or 0.2
    shares = [(1 + math.cos(math.pi * t / 100)) / 2 for t in range(100)]
    shares += [t / 10 for t in range(10)]
    shares += [(1 + math.cos(math.pi * t / 90)) / 2 for t in range(91)]
    by_hand = 0.04 + np.outer(shares, [0.36, 0.16])
    np.testing.assert_allclose(again.lr_at(range(201)), by_hand, rtol=1e-6)


def test_rewarming_rises_to_another_peak_from_the_rate_that_the_run_has():
    scheduler = rewarm(ExponentialLR([0.8, 0.4], 0.5), at=2, length=4, peak_lr=0.6)
    by_hand = [[0.2 + 0.4 * x, 0.1 + 0.5 * x] for x in (0, 0.25, 0.5, 0.75, 1, 1)]
    np.testing.assert_allclose(scheduler.lr_at(range(2, 8)), by_hand, rtol=1e-6)


def test_the_base_rate_of_a_composition_is_its_first_parts():
    old = SequentialLR([ConstantLR(0.5, 0.5, 9), ConstantLR(0.125, 1.0)], [4])
    assert rewarm(old, 6, 2).lr_at([3, 6, 7, 8]).ravel().tolist() == [0.25, 0.125, 0.3125, 0.5]


@given(st.data())
def test_before_the_branch_nothing_changes_and_after_it_nothing_jumps(data):
    old = trunks(data.draw)
    at, length = data.draw(st.integers(0, MOST)), data.draw(st.integers(1, MOST))
    end_lr = data.draw(st.none() | rates)
    strategy = data.draw(st.sampled_from(["linear", "cos", "sqrt", "polynomial"]))
    branch = Branch(old, at, length, end_lr, strategy)
    np.testing.assert_array_equal(branch.lr_at(range(at + 1)), old.lr_at(range(at + 1)))
    np.testing.assert_allclose(branch.lr_at(at + 1e-9), old.lr_at(at), rtol=1e-3, atol=1e-3)
    end = old.base_lrs if end_lr is None else [end_lr] * len(old.base_lrs)
    np.testing.assert_array_equal(branch.lr_at(at + length)[..., :], float32(end))
    np.testing.assert_array_equal(branch.lr_at(at + length + MOST), branch.lr_at(at + length))


@pytest.mark.parametrize(
    "plan",
    [
        lambda old, **last: cooldown(old, 40, 10, **last),
        lambda old, **last: rewarm(old, 40, 10, **last),
        lambda old, **last: Branch(old, 40, 10, 0.1, **last),
        lambda old, **last: Extension(old, 40, 90, 99, **last),
    ],
)
def test_a_plan_begins_where_the_schedule_that_it_leaves_stands(plan):
    running = at_epoch(WSD(**LONG_RUN), 40)
    optimizer = braintools.optim.SGD(lr=plan(running))
    optimizer.register_trainable_weights({"w": brainstate.ParamState(jnp.ones(2))})
    assert optimizer.lr.epoch == 40
    assert optimizer.current_lr == np.float32(0.4)
    assert plan(WSD(**LONG_RUN)).epoch == 0
    assert plan(running, last_epoch=3).epoch == 3
    assert brainsched.from_config(plan(running).config).epoch == 40
    np.testing.assert_array_equal(plan(running).as_optax()(0), np.float32(0.4))


def test_a_plan_may_leave_and_end_between_whole_epochs():
    scheduler = cooldown(WSD(**LONG_RUN), at=42.5, length=5)
    np.testing.assert_allclose(scheduler.lr_at([42, 45, 47.5])[:, 0], [0.4, 0.2, 0.0])
    stretched = Extension(MultiStepLR(1.0, [3.5, 5], 0.5), 2.5, 5, 7.5)
    assert stretched.lr_at([4, 4.5, 7, 7.5]).ravel().tolist() == [1.0, 0.5, 0.5, 0.25]
    assert stretched.stage_boundaries == [4.5, 7.5]


def test_a_branch_of_a_branch_forks_again():
    first = cooldown(WSD(**LONG_RUN), at=20, length=10)
    second = rewarm(first, at=25, length=4, peak_lr=0.4)
    by_hand = [0.4, 0.36, 0.32, 0.28, 0.24, 0.2, 0.25, 0.3, 0.35, 0.4, 0.4]
    np.testing.assert_allclose(second.lr_at(range(20, 31))[:, 0], by_hand, rtol=1e-6)
    assert second.stage_boundaries == [10, 20, 25, 29]  # the end of the fall never comes


def test_a_branch_is_stepped_by_an_optimizer_and_groups_join_it():
    scheduler = rewarm(StepLR([0.8, 0.4], 2, 0.5), at=4, length=2)
    optimizer = braintools.optim.Adam(lr=scheduler)
    optimizer.register_trainable_weights({"w": brainstate.ParamState(jnp.ones(2))})
    optimizer.add_param_group({"v": brainstate.ParamState(jnp.ones(2))})
    optimizer.add_param_group({"u": brainstate.ParamState(jnp.ones(2))}, lr=1.6)

    def step(_):
        rates = jnp.stack([group["lr"].value for group in optimizer.param_groups])
        scheduler.step()
        return rates

    seen = [step(0) for _ in range(5)]
    seen += list(jit(lambda: for_loop(step, jnp.arange(3)))())
    shares = [1, 1, 0.5, 0.5, 0.25, 0.625, 1, 1]
    np.testing.assert_array_equal(np.stack(seen), float32(np.outer(shares, [0.8, 0.4, 1.6])))


@pytest.mark.parametrize(
    "plan",
    [
        cooldown(WarmupCosineSchedule(0.1, 5, 90), 60, 13, 1e-3, "sqrt"),
        rewarm(CosineAnnealingLR(0.1, 60), 60, 7),
        Extension(WarmupCosineSchedule(0.1, 5, 90), at=60, end=90, new_end=120),
    ],
)
def test_it_is_the_same_on_the_host_compiled_in_optax_and_per_update(plan):
    rates = plan.lr_at(range(130))[:, 0]
    np.testing.assert_array_equal(jax.jit(plan.lr_at)(jnp.arange(130))[:, 0], rates)
    np.testing.assert_array_equal(jax.jit(jax.vmap(plan.as_optax()))(jnp.arange(130)), rates)
    tx = optax.scale_by_schedule(plan.as_optax())
    state = tx.init(jnp.ones(()))._replace(count=jnp.asarray(63, jnp.int32))
    assert tx.update(jnp.float32(1), state)[0] == rates[63]
    per_update = PerUpdate(plan, 3)
    np.testing.assert_array_equal(per_update.lr_at(range(0, 390, 3))[:, 0], rates)
    counts = jnp.arange(150, 300)
    np.testing.assert_array_equal(jax.jit(per_update.lr_at)(counts), per_update.lr_at(counts))


def test_an_extended_cosine_reaches_its_end_later():
    old = CosineAnnealingLR(0.1, T_max=90, eta_min=0.01)
    scheduler = Extension(old, at=60, end=90, new_end=120)
    old_epochs = [*range(61), *(60 + (t - 60) / 2 for t in range(61, 121)), *[90] * 10]
    by_hand = [0.01 + 0.09 * (1 + math.cos(math.pi * t / 90)) / 2 for t in old_epochs]
    np.testing.assert_allclose(scheduler.lr_at(range(131))[:, 0], by_hand, rtol=1e-6)
    np.testing.assert_array_equal(scheduler.lr_at(range(61)), old.lr_at(range(61)))


@given(st.data())
def test_an_extension_takes_the_old_rates_at_the_times_by_hand(data):
    old = trunks(data.draw)
    at = data.draw(st.integers(0, MOST))
    left, new_left = data.draw(st.integers(1, MOST)), data.draw(st.integers(1, MOST))
    scheduler = Extension(old, at, at + left, at + new_left)
    for since in range(new_left + 1):
        whole, rest = divmod(since * left, new_left)
        if not rest:  # where the old epoch is whole, the rate is exactly that epoch's
            np.testing.assert_array_equal(
                scheduler.lr_at(at + since), old.lr_at(at + whole), err_msg=str(since)
            )
    np.testing.assert_array_equal(scheduler.lr_at(range(at)), old.lr_at(range(at)))
    after = np.arange(MOST)
    np.testing.assert_array_equal(
        scheduler.lr_at(at + new_left + after), old.lr_at(at + left + after)
    )


@pytest.mark.parametrize("new_end", [11, 13, 17, 20, 23, 40, 101])
def test_the_stages_of_an_extension_change_where_it_says(new_end):
    old = MultiStepLR(1.0, [3, 10, 12, 14, 19, 20, 25], 0.5)
    scheduler = Extension(old, at=10, end=20, new_end=new_end)
    rates = scheduler.lr_at(range(130))[:, 0]
    changes = (np.flatnonzero(np.diff(rates)) + 1).tolist()
    assert changes == sorted({math.ceil(at) for at in scheduler.stage_boundaries})
    assert scheduler.stage_boundaries[:2] == [3, 10]
    assert scheduler.stage_boundaries[-2:] == [new_end, new_end + 5]
    compiled = jax.jit(scheduler.lr_at)(jnp.arange(130))[:, 0]
    np.testing.assert_array_equal(compiled, rates)


@pytest.mark.parametrize(("left", "new_left"), [(7, 49), (3, 49), (11, 391), (97, 98), (100, 1563)])
def test_a_stage_begins_at_the_first_epoch_that_reaches_it(left, new_left):
    """A reciprocal in the place of the quotient is an epoch late: 49 * (1 / 49) is below 1."""
    boundaries = range(1, left + 1)
    old = PiecewiseConstantSchedule(1.0, boundaries, range(1, left + 2))
    scheduler = Extension(old, at=0, end=left, new_end=new_left)
    by_hand = [1 + since * left // new_left for since in range(new_left + 1)]
    assert scheduler.lr_at(range(new_left + 1))[:, 0].tolist() == by_hand
    assert jax.jit(scheduler.lr_at)(jnp.arange(new_left + 1))[:, 0].tolist() == by_hand
    times = [boundary * new_left / left for boundary in boundaries]
    np.testing.assert_allclose(scheduler.stage_boundaries, times)


def test_a_stage_that_would_begin_where_the_branch_does_is_named_once():
    old = MultiStepLR(1.0, [3, 8, 12], 0.5)
    assert rewarm(old, 8, 4).stage_boundaries == [3, 8, 12]


def test_config_and_repr_show_the_plan_and_what_it_left():
    scheduler = cooldown(StepLR(0.5, 2), 8, 4, last_epoch=1)
    assert repr(scheduler) == (
        "Branch(scheduler=StepLR(base_lr=0.5, step_size=2, gamma=0.1), at=8, length=4, "
        "end_lr=0.0, strategy='linear', last_epoch=1)  # rates: 0.5; no optimizer"
    )
    for plan in (scheduler, rewarm(StepLR(0.5), 3, 4), Extension(StepLR(0.5), 3, 5, 7)):
        rebuilt = brainsched.from_config(plan.config)
        assert rebuilt.config == plan.config
        np.testing.assert_array_equal(rebuilt.lr_at(range(20)), plan.lr_at(range(20)))


def at_epoch(scheduler, epoch):
    scheduler.step(epoch)
    return scheduler


def loaded(scheduler, state_dict):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that the schedule has changed
        scheduler.load_state_dict(pickle.loads(pickle.dumps(state_dict)))
    return scheduler


def test_a_checkpoint_of_the_old_schedule_loads_in_its_branch():
    long_run = at_epoch(WSD(**LONG_RUN), 100)
    long_run.apply(lambda rate: 0.3)  # set by hand, which is restored as ever
    branch = loaded(cooldown(WSD(**LONG_RUN), 100, 40), long_run.state_dict())
    assert branch.get_last_lr() == [np.float32(0.3)]
    branch.step()
    assert branch.epoch == 101
    assert branch.get_last_lr() == [np.float32(0.4 * 39 / 40)]

    again = loaded(cooldown(WSD(**LONG_RUN), 100, 40), branch.state_dict())
    assert again.get_last_lr() == branch.get_last_lr()
    further = rewarm(again, 120, 5)  # a branch of the branch takes both
    loaded(further, branch.state_dict())
    loaded(further, long_run.state_dict())

    extended = loaded(
        Extension(CosineAnnealingLR(0.1, 90), 60, 90, 120),
        at_epoch(CosineAnnealingLR(0.1, 90), 60).state_dict(),
    )
    assert extended.epoch == 60


def test_a_plan_that_leaves_before_the_checkpoint_shows_both_rates():
    saved = at_epoch(WSD(**LONG_RUN), 120).state_dict()
    late = cooldown(WSD(**LONG_RUN), 100, 40)
    with pytest.warns(UserWarning, match=r"from epoch 120 on.* group 0: 0\.4 -> 0\.2"):
        late.load_state_dict(saved)
    assert late.epoch == 120
    in_time = loaded(cooldown(WSD(**LONG_RUN), 120, 40), saved)
    assert in_time.get_last_lr() == [np.float32(0.4)]
    saved = at_epoch(CosineAnnealingLR(0.1, 90), 70).state_dict()
    with pytest.warns(UserWarning, match="from epoch 70 on"):
        Extension(CosineAnnealingLR(0.1, 90), 60, 90, 120).load_state_dict(saved)


def test_a_branch_of_a_changed_schedule_says_what_changed():
    saved = at_epoch(WSD(**LONG_RUN), 50).state_dict()
    changed = WSD(**LONG_RUN | {"base_lr": 0.2})
    with pytest.warns(UserWarning, match=r"base_lr changed.* group 0: 0\.4 -> 0\.2"):
        cooldown(changed, 100, 40).load_state_dict(saved)


def test_a_checkpoint_of_another_class_or_of_the_other_unit_is_refused():
    saved = StepLR(0.5).state_dict()
    with pytest.raises(ValueError, match="'StepLR', but this scheduler is a Branch of a WSD"):
        cooldown(WSD(0.5), 1, 1).load_state_dict(saved)
    with pytest.raises(ValueError, match="'StepLR', but this scheduler is a PerUpdate"):
        PerUpdate(StepLR(0.5), 100).load_state_dict(saved)


OLD = StepLR(0.5)
BAD: list[Any] = [
    (Branch, (0.1, 1, 1), TypeError, "scheduler must be a scheduler of brainsched, got flo"),
    (cooldown, (ReduceLROnPlateau(), 1, 1), TypeError, "scheduler needs a rate that is"),
    (cooldown, (OLD, -1, 1), ValueError, "at must be finite and not negative, got -1"),
    (cooldown, (OLD, "1", 1), TypeError, "at must be a number, got '1'"),
    (cooldown, (OLD, 1, 0), ValueError, "length must be above 0, got 0"),
    (cooldown, (OLD, 1, 1, -0.1), ValueError, "eta_min must be finite and not negative"),
    (cooldown, (OLD, 1, 1, 0, "exponential"), ValueError, "eta_min must be above 0 for an expon"),
    (Branch, (OLD, 1, 1, [0.1, 0.0], "exponential"), ValueError, "end_lr must be above 0 for an"),
    (cooldown, (OLD, 1, 1, 0, "exp"), ValueError, "decay_strategy must be one of 'linear'"),
    (Branch, (OLD, 1, 1, "0"), TypeError, "end_lr must be a sequence of numbers, or one number"),
    (Branch, (OLD, 1, 1, 0, 2), TypeError, "strategy must be one of 'linear', 'cos', 'sqrt'"),
    (rewarm, (OLD, 1, 2**31), ValueError, "length must be at most 2.147e"),
    (rewarm, (OLD, 1, 1, math.nan), ValueError, "peak_lr must be finite .* got nan"),
    (Extension, (OLD, 5, 5, 9), ValueError, "after at, which is 5, got 5: .* use rewarm"),
    (Extension, (OLD, 0, 0, 9), ValueError, "after at, which is 0, got 0: .* use rewarm"),
    (Extension, (OLD, 5, 9, 5), ValueError, "new_end must come after at, which is 5, got 5"),
    (Extension, ([OLD], 5, 9, 9), TypeError, "scheduler must be a scheduler of brainsched"),
]


@pytest.mark.parametrize(("build", "arguments", "error", "message"), BAD)
def test_bad_arguments_are_refused(build, arguments, error, message):
    with pytest.raises(error, match=message):
        build(*arguments)


def test_the_base_rate_of_a_cycle_is_its_lowest():
    """So a cycle is warmed up again to a rate that is named."""
    old = CyclicLR(0.1, 0.5, step_size_up=2)
    assert rewarm(old, 4, 2).lr_at(6) == np.float32(0.1)
    assert rewarm(old, 4, 2, peak_lr=0.5).lr_at(6) == np.float32(0.5)


def test_gradients_flow_to_the_rates_of_both_ends():
    def rate(base, end):
        return Branch(ConstantLR(base, 1.0), 2, 4, end).lr_at(3)[0]

    np.testing.assert_allclose(jax.grad(rate, argnums=(0, 1))(0.5, 0.1), (0.75, 0.25))
