"""Schedules made of schedules: pure functions of the epoch, at any depth."""

import math
import pickle
from fractions import Fraction

import brainstate
import braintools
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest
from brainstate.transform import for_loop, jit

from brainsched import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    LambdaLR,
    LRScheduler,
    MultiStepLR,
    PerUpdate,
    PiecewiseConstantSchedule,
    PolynomialLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
    WarmupCosineSchedule,
    WarmupScheduler,
    from_config,
)


def warmup_then_steps() -> SequentialLR:
    return SequentialLR([WarmupScheduler(0.4, 4), StepLR(0.4, 3, 0.5)], milestones=[4])


# By hand: a rise of 0.1 an epoch from 0, then half of 0.4 every 3 epochs
EXPECTED = np.array([0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.2, 0.2, 0.2, 0.1, 0.1], np.float32)


def optimizer_for(scheduler: LRScheduler) -> braintools.optim.SGD:
    optimizer = braintools.optim.SGD(lr=scheduler)
    optimizer.register_trainable_weights({"w": brainstate.ParamState(jnp.ones(2))})
    return optimizer


def test_each_part_runs_from_its_own_epoch_zero():
    np.testing.assert_array_equal(warmup_then_steps().lr_at(range(12))[:, 0], EXPECTED)


def test_a_part_begins_at_the_epoch_that_it_was_built_with():
    """A cosine that goes on under a warm-up, as in PyTorch where both have stepped from 0."""
    parts = [WarmupScheduler(0.1, 20, last_epoch=10), CosineAnnealingLR(0.1, 100, last_epoch=20)]
    scheduler = SequentialLR(parts, [20])
    parts[1].step(50)  # which is ignored: the plan was made
    by_hand = [0.05, 0.1, *(0.1 * (1 + np.cos(np.pi * share)) / 2 for share in (0.2, 0.7, 1.0))]
    np.testing.assert_allclose(scheduler.lr_at([0, 10, 20, 70, 100])[:, 0], by_hand, rtol=1e-6)
    assert scheduler.stage_boundaries == [10, 20]
    rebuilt = from_config(scheduler.config)
    np.testing.assert_array_equal(rebuilt.lr_at(range(120)), scheduler.lr_at(range(120)))


def test_milestones_may_lie_between_whole_epochs():
    scheduler = SequentialLR([ConstantLR(0.5, 1.0), StepLR(1.0, 1, 0.5)], [2.4])
    assert scheduler.lr_at([2, 2.4, 3, 3.4]).ravel().tolist() == [0.5, 1.0, 1.0, 0.5]
    updates = PerUpdate(scheduler, 5)
    assert updates.lr_at([11, 12, 16, 17]).ravel().tolist() == [0.5, 1.0, 1.0, 0.5]


def test_a_part_of_which_no_epoch_is_left_is_skipped():
    scheduler = SequentialLR([ConstantLR(1.0, 0.5, 9), StepLR(0.25, 2, 0.5)], milestones=[0])
    assert scheduler.lr_at(range(4)).ravel().tolist() == [0.25, 0.25, 0.125, 0.125]


def test_stages_are_those_of_the_parts_within_their_spans():
    parts = [MultiStepLR(0.5, [1, 3, 5, 9]), MultiStepLR(0.5, [2, 4]), MultiStepLR(0.5, [7])]
    assert SequentialLR(parts, [5, 9]).stage_boundaries == [1, 3, 5, 7, 9, 16]


def test_the_last_part_runs_to_the_largest_epoch():
    last = 2**31 - 1
    parts = [ConstantLR(1.0, 1.0, 0), PiecewiseConstantSchedule(0.5, [last - 3], [1.0, 0.5])]
    scheduler = SequentialLR(parts, milestones=[3])
    assert scheduler.lr_at([last - 1, last]).ravel().tolist() == [0.5, 0.25]


def test_sequence_in_a_compiled_loop_does_not_stay_at_its_first_rate():
    """braintools 0.3.0 catches the tracing error, drops it, and stays at the first rate."""
    scheduler = warmup_then_steps()

    def step(_):
        rate = scheduler.get_last_lr()[0]
        scheduler.step()
        return rate

    np.testing.assert_array_equal(for_loop(step, jnp.arange(12)), EXPECTED)


@pytest.mark.parametrize("stop", [3, 4, 5])
def test_a_sequence_that_is_resumed_goes_on_as_if_never_stopped(stop):
    """PyTorch's gives other rates after a milestone: its issues 60265 and 119168."""
    stopped, resumed = warmup_then_steps(), warmup_then_steps()
    for _ in range(stop):
        stopped.step()
    resumed.load_state_dict(pickle.loads(pickle.dumps(stopped.state_dict())))
    for epoch in range(stop, 12):
        assert resumed.get_last_lr() == [EXPECTED[epoch]]
        resumed.step()


def test_a_jump_over_a_milestone_lands_where_steps_lead():
    scheduler = warmup_then_steps()
    for epoch in (11, 2, 7, 4, 3):
        scheduler.step(epoch)
        assert scheduler.get_last_lr() == [EXPECTED[epoch]]


def test_building_and_restoring_leave_parts_and_their_optimizer_alone():
    part = StepLR(0.5, 1, 0.5)
    optimizer = optimizer_for(part)
    part.step(2)
    scheduler = SequentialLR([part, ConstantLR(0.1)], [3])
    scheduler.step(4)
    scheduler.load_state_dict(scheduler.state_dict())
    assert part.epoch == 2
    assert part.get_last_lr() == [0.125]
    assert optimizer.current_lr == 0.125
    assert scheduler.lr_at(1).item() == 0.25  # where the part stands is ignored


def test_chain_multiplies_factors():
    scheduler = ChainedScheduler([PolynomialLR(0.8, 4), ConstantLR(0.1, 0.5, 2), StepLR(3.0, 3)])
    by_hand = [0.8 * 0.5, 0.6 * 0.5, 0.4, 0.2 * 0.1, 0]
    np.testing.assert_array_equal(scheduler.lr_at(range(5))[:, 0], np.array(by_hand, np.float32))


def test_chain_with_a_base_rate_of_zero_is_zero():
    warmup = WarmupScheduler([0.0, 1.0, 1.0], 2, warmup_start_lr=0.5)
    scheduler = ChainedScheduler([warmup, StepLR([1.0, 0.0, 1.0], 1, 0.5)])
    assert scheduler.lr_at([0, 2]).tolist() == [[0, 0, 0.5], [0, 0, 0.25]]


def test_chain_that_exceeds_float32_stays_finite():
    scheduler = ChainedScheduler([ConstantLR(3e38, 1.0), LambdaLR(1.0, lambda t: 1e30)])
    assert scheduler.lr_at(0).tolist() == [np.finfo(np.float32).max]


def test_compositions_nest():
    inner = ChainedScheduler([warmup_then_steps(), ConstantLR(2.0, 0.5, 6)])
    scheduler = SequentialLR([ConstantLR(0.3, 1.0), SequentialLR([inner, StepLR(0.7)], [9])], [2])
    factor = np.where(np.arange(9) < 6, 0.5, 1.0)
    expected = [0.3, 0.3, *(EXPECTED[:9] * 0), 0.7, 0.7]
    # The chain's base rate is that of its first part's first part: 0.4
    expected[2:11] = np.array([0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0.2, 0.2]) * factor
    rates = scheduler.lr_at(range(13))[:, 0]
    np.testing.assert_allclose(rates, expected, rtol=2e-7)
    np.testing.assert_array_equal(jax.jit(scheduler.lr_at)(jnp.arange(13))[:, 0], rates)


@pytest.mark.filterwarnings("ignore:braintools 0.3.0 trains every group:UserWarning")
def test_a_group_added_later_joins_every_part():
    scheduler = SequentialLR([ConstantLR([0.1, 0.2], 0.5, 9), StepLR([0.3, 0.4], 5, 0.1)], [2])
    optimizer = optimizer_for(scheduler)
    for group, lr in enumerate([None, None, 0.8], start=1):
        given = {} if lr is None else {"lr": lr}
        optimizer.add_param_group({f"v{group}": brainstate.ParamState(jnp.ones(2))}, **given)
    np.testing.assert_array_equal(scheduler.lr_at(1), np.array([0.05, 0.1, 0.1, 0.4], np.float32))
    np.testing.assert_array_equal(scheduler.lr_at(2), np.array([0.3, 0.4, 0.4, 0.8], np.float32))
    assert scheduler.base_lrs == [0.1, 0.2, 0.2, 0.8]

    jit(scheduler.step)(2)
    rates = [group["lr"].value for group in optimizer.param_groups]
    np.testing.assert_array_equal(rates, np.array([0.3, 0.4, 0.4, 0.8], np.float32))


def test_an_lr_that_differs_from_a_parts_entry_is_refused_and_changes_nothing():
    scheduler = ChainedScheduler([ConstantLR([0.1, 0.2]), StepLR([0.1, 0.4])])
    optimizer = optimizer_for(scheduler)
    with pytest.raises(ValueError, match=r"group 1 was added with lr=0\.2, .* is 0\.4"):
        optimizer.add_param_group({"v": brainstate.ParamState(jnp.ones(2))}, lr=0.2)
    assert len(optimizer.param_groups) == len(scheduler.current_lrs.value) == 1


@pytest.mark.filterwarnings("ignore:braintools 0.3.0 trains every group:UserWarning")
def test_a_part_with_columns_limits_the_groups():
    columns = PiecewiseConstantSchedule(1.0, [1], [[1.0, 0.5], [0.1, 0.2]])
    scheduler = SequentialLR([ConstantLR(1.0, 1.0), columns], [1])
    optimizer = optimizer_for(scheduler)
    optimizer.add_param_group({"v": brainstate.ParamState(jnp.ones(2))})
    assert scheduler.lr_at(1).tolist() == [1.0, 0.5]
    with pytest.raises(ValueError, match="has 2 column"):
        optimizer.add_param_group({"u": brainstate.ParamState(jnp.ones(2))})


class InverseLR(LRScheduler):
    """Not defined below epoch 0: its rate there would be infinite, or NaN."""

    def formula(self, epoch, base_lrs, xp):
        return base_lrs / xp.sqrt(epoch + 1.0)


def test_no_nan_of_an_inactive_part_reaches_a_gradient():
    def rate(base, epoch):
        parts = [InverseLR(base), InverseLR(base), CosineAnnealingLR(base, 2)]
        return SequentialLR(parts, [3, 8]).lr_at(epoch)[0]

    for epoch, slope in [(0, 1.0), (2, 3**-0.5), (3, 1.0), (6, 0.5), (8, 1.0), (9, 0.5)]:
        np.testing.assert_allclose(jax.grad(rate)(0.7, epoch), slope, rtol=1e-6)

    def chained(base):
        return ChainedScheduler([ConstantLR(0.5, 0.5), ConstantLR(base, 0.5)]).lr_at(0)[0]

    assert jax.grad(chained)(0.0) == 0


def test_a_sweep_over_compositions_is_vmapped():
    def rates(base, factor):
        parts = [WarmupScheduler(base, 2), PiecewiseConstantSchedule(base, [1], [1.0, factor])]
        return SequentialLR(parts, [2]).lr_at(jnp.arange(4))[:, 0]

    swept = jax.vmap(rates)(jnp.array([1.0, 2.0], np.float32), jnp.float32([0.5, 0.25]))
    assert swept.tolist() == [[0, 0.5, 1, 0.5], [0, 1, 2, 0.5]]


def test_a_users_function_in_a_part_runs_compiled_and_on_the_host():
    scheduler = SequentialLR([LambdaLR(1.0, lambda t: 1 / (1 + t)), StepLR(0.125)], [2])
    seen = []
    for _ in range(3):
        seen += scheduler.get_last_lr()
        scheduler.step()
    assert np.asarray(seen).tolist() == [1.0, 0.5, 0.125]


def test_config_and_repr_show_the_parts():
    scheduler = SequentialLR([StepLR(0.5), ChainedScheduler([ConstantLR(0.5)])], [7], 8)
    assert repr(scheduler) == (
        "SequentialLR(schedulers=[StepLR(base_lr=0.5, step_size=30, gamma=0.1), "
        "ChainedScheduler(schedulers=[ConstantLR(base_lr=0.5, factor=0.3333333333333333, "
        "total_iters=5)])], milestones=[7], last_epoch=8)  # rates: 0.16666667; no optimizer"
    )
    chain = scheduler.config["schedulers"][1]
    assert chain["class"] == "ChainedScheduler"
    assert chain["schedulers"][0]["total_iters"] == 5


def test_a_changed_part_is_named_on_resuming():
    saved = SequentialLR([StepLR(0.5), ConstantLR(0.5)], [7]).state_dict()
    changed = SequentialLR([StepLR(0.5, 20), ConstantLR(0.5)], [7])
    with pytest.warns(UserWarning, match="schedulers changed"):
        changed.load_state_dict(saved)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (
            lambda o: o.SequentialLR([o.StepLR(0.4, 2, 0.5), o.ConstantLR(0.1, 1.0)], [5]),
            lambda: SequentialLR([StepLR(0.4, 2, 0.5), ConstantLR(0.1, 1.0)], [5]),
        ),
        (
            lambda o: o.ChainedScheduler([o.StepLR(0.4, 2, 0.5)]),
            lambda: ChainedScheduler([StepLR(0.4, 2, 0.5)]),
        ),
    ],
)
def test_a_state_dict_of_braintools_gives_the_position(theirs, ours):
    stopped, scheduler = theirs(braintools.optim), ours()
    for _ in range(3):
        stopped.step()
    scheduler.load_state_dict(stopped.state_dict())
    assert scheduler.epoch == 3
    assert scheduler.get_last_lr() == [np.float32(0.2)]


def test_a_chain_whose_base_rates_do_not_come_first_is_warned_of():
    for first in (PiecewiseConstantSchedule(1.0, [3], [0.0, 1.0]), ConstantLR([1.0, 1.0])):
        with pytest.warns(UserWarning, match=r"uses the base rate of `schedulers\[0\]`. Reorder"):
            ChainedScheduler([first, StepLR([0.1, 0.2])])


@pytest.mark.parametrize(
    "parts",
    [
        [StepLR([0.1, 0.2]), PiecewiseConstantSchedule(1.0, [3], [0.0, 1.0])],
        [StepLR(0.1), WarmupScheduler(warmup_epochs=5)],
        [StepLR(0.1), StepLR(0.5)],
        [StepLR(), WarmupScheduler()],
        [StepLR([1.0, 0.5]), StepLR(0.25)],
        [StepLR(1.0), StepLR([1.0, 1.0])],
        [StepLR(jnp.float32(1.0)), StepLR(0.25)],
    ],
)
def test_base_rates_that_may_be_meant_in_a_chain_are_not_warned_of(parts):
    first = ChainedScheduler(parts).base_lrs[0]
    assert first == parts[0].base_lrs[0]


BAD = [
    ([], [], ValueError, "schedulers must have one entry more than milestones, 1 in all, got 0"),
    (StepLR(), [], TypeError, "schedulers must be a sequence of schedulers"),
    ([StepLR()] * 2, [], ValueError, "1 in all, got 2"),
    ([StepLR()] * 2, [3, 5], ValueError, "3 in all, got 2"),
    ([StepLR()] * 3, [5, 3], ValueError, r"milestones\[1\] = 3 after 5"),
    ([StepLR()] * 3, [5, 5], ValueError, r"milestones\[1\] = 5 after 5"),
    ([StepLR()] * 2, [-1], ValueError, r"milestones\[0\] must be finite and not negat"),
    ([StepLR()] * 2, ["2"], TypeError, r"milestones\[0\] must be a number"),
    ([StepLR(), 0.1], [2], TypeError, r"schedulers\[1\] must be a scheduler of brainsched, got fl"),
    ([StepLR(), braintools.optim.StepLR()], [2], TypeError, r"schedulers\[1\] must be a scheduler"),
    ([StepLR(), ReduceLROnPlateau()], [2], TypeError, r"schedulers\[1\] needs a rate that is a f"),
    (
        [StepLR([0.1, 0.2]), StepLR([0.1, 0.2, 0.3])],
        [2],
        ValueError,
        r"schedulers\[0\] has 2 base rates and schedulers\[1\] has 3",
    ),
]


@pytest.mark.parametrize(("parts", "milestones", "error", "message"), BAD)
def test_bad_parts_are_refused(parts, milestones, error, message):
    with pytest.raises(error, match=message):
        SequentialLR(parts, milestones)


def test_a_chain_needs_a_scheduler():
    with pytest.raises(ValueError, match="schedulers must have at least one scheduler"):
        ChainedScheduler([])
    with pytest.raises(TypeError, match=r"schedulers\[0\] needs a rate that is a function"):
        ChainedScheduler([ReduceLROnPlateau()])


# Stepped once an update, with the quotient that is exact

LAST = 2**31 - 1
DIVISORS = [1, 3, 7, 10, 49, 100, 391, 1563, LAST]


class EpochLR(LRScheduler):
    """Shows the epoch that its formula gets."""

    def formula(self, epoch, base_lrs, xp):
        return base_lrs * epoch


@pytest.mark.parametrize("steps_per_epoch", DIVISORS)
def test_the_quotient_is_the_fraction_rounded_once_on_every_path(steps_per_epoch):
    near = [steps_per_epoch * k + d for k in range(1, 300) for d in (-1, 0, 1)]
    counts = [n for n in [*range(3000), *near, *range(LAST - 500, LAST + 1)] if n <= LAST]
    by_hand = np.array([float(Fraction(n, steps_per_epoch)) for n in counts])
    with jax.enable_x64(True):
        scheduler = PerUpdate(EpochLR(1.0), steps_per_epoch)
        as_optax = scheduler.as_optax()
        np.testing.assert_array_equal(scheduler.lr_at(counts)[:, 0], by_hand)
        traced = jnp.asarray(counts)
        np.testing.assert_array_equal(jax.jit(scheduler.lr_at)(traced)[:, 0], by_hand)
        np.testing.assert_array_equal(jax.jit(jax.vmap(as_optax))(traced), by_hand)
        constant = jax.jit(lambda: scheduler.lr_at(jnp.asarray(counts)))
        np.testing.assert_array_equal(constant()[:, 0], by_hand)


@pytest.mark.parametrize("steps_per_epoch", [3, 7, 49, 100, 391])
@pytest.mark.parametrize("staircase", [False, True])
def test_a_stage_changes_exactly_at_its_boundary_times_the_updates_of_an_epoch(
    steps_per_epoch, staircase
):
    boundaries = list(range(1, 201))
    values = [1.0, *(1.0 + boundary for boundary in boundaries)]
    part = PiecewiseConstantSchedule(1.0, boundaries, values)
    scheduler = PerUpdate(part, steps_per_epoch, staircase)
    counts = np.arange(201 * steps_per_epoch)
    by_hand = (1 + counts // steps_per_epoch).astype(np.float32)
    np.testing.assert_array_equal(scheduler.lr_at(counts)[:, 0], by_hand)
    np.testing.assert_array_equal(jax.jit(scheduler.lr_at)(jnp.asarray(counts))[:, 0], by_hand)
    assert scheduler.stage_boundaries == [boundary * steps_per_epoch for boundary in boundaries]


def test_a_warmup_rises_and_a_cosine_falls_at_every_update():
    """With whole epochs, 100 of 9,000 updates are at rate 0 and there are 90 distinct rates."""
    scheduler = PerUpdate(WarmupCosineSchedule(1e-3, 5, 90), 100)
    n = np.arange(9000)
    by_hand = np.where(n < 500, n / 500, (1 + np.cos(np.pi * (n - 500) / 8500)) / 2) * 1e-3
    rates = scheduler.lr_at(n)[:, 0]
    np.testing.assert_allclose(rates, by_hand, rtol=1e-6, atol=1e-16)
    assert (np.diff(rates[:501]) > 0).all()
    assert (np.diff(rates[500:]) <= 0).all()
    assert len(np.unique(rates)) > 8800


def test_whole_epochs_are_the_rates_of_the_part_each_held_for_an_epoch():
    part = CosineAnnealingLR([0.1, 0.3], 9)
    rates = PerUpdate(part, 13, staircase=True).lr_at(range(130))
    np.testing.assert_array_equal(rates, np.repeat(part.lr_at(range(10)), 13, axis=0))


@pytest.mark.parametrize(("step_size", "updates"), [("2.4", 1251), ("0.3", 391), ("5/3", 1251)])
def test_a_length_between_whole_epochs_is_exact_at_its_boundary(step_size, updates):
    """timm's EfficientNet decays every 2.4 epochs; 145 * 2.4 * 1251 is update 435,348."""
    period = Fraction(step_size) * updates
    first_of_each = [math.ceil(period * k) for k in range(1, 1000)]
    counts = np.array([n for boundary in first_of_each for n in (boundary - 1, boundary)])
    by_hand = [n // period for n in counts.tolist()]
    part = StepLR(1.0, float(Fraction(step_size)), 0.999)
    milestones = [float(Fraction(step_size) * k) for k in range(1, 1000)]
    staged = MultiStepLR(1.0, milestones, 0.999)
    for scheduler in (
        PerUpdate(part, updates),
        PerUpdate(staged, updates),
        StepLR(1.0, Fraction(step_size) * updates, 0.999),
    ):
        expected = np.array([0.999**k for k in by_hand], np.float32)
        np.testing.assert_array_equal(scheduler.lr_at(counts)[:, 0], expected)
        np.testing.assert_array_equal(jax.jit(scheduler.lr_at)(counts)[:, 0], expected)


def test_an_epoch_may_have_a_fraction_of_updates():
    scheduler = PerUpdate(StepLR(0.1, 2, 0.5), 2.5)
    np.testing.assert_allclose(scheduler.lr_at([4, 5, 9, 10])[:, 0], [0.1, 0.05, 0.05, 0.025])


def test_a_stretch_of_a_stretch_multiplies():
    inner = PerUpdate(StepLR(1.0, 2, 0.5), 3)
    np.testing.assert_array_equal(
        PerUpdate(inner, 4).lr_at(range(60)), PerUpdate(StepLR(1.0, 2, 0.5), 12).lr_at(range(60))
    )


def test_parts_of_compositions_have_milestones_in_updates():
    warmup = PerUpdate(WarmupScheduler(1.0, 2), 4)
    steps = PerUpdate(MultiStepLR(1.0, [1, 2], 0.5), 4)
    scheduler = SequentialLR([warmup, steps], [8])
    by_hand = [*(n / 8 for n in range(8)), *[1.0] * 4, *[0.5] * 4, *[0.25] * 4]
    np.testing.assert_array_equal(scheduler.lr_at(range(20))[:, 0], np.asarray(by_hand, np.float32))
    assert scheduler.stage_boundaries == [8, 12, 16]
    chain = ChainedScheduler([warmup, ConstantLR(1.0, 0.5, 4)])
    assert chain.lr_at([2, 4]).ravel().tolist() == [0.125, 0.5]


def test_stepped_once_an_update_by_an_optimizer_on_the_host_and_compiled():
    scheduler = PerUpdate(WarmupScheduler([1.0, 0.5], 2), 4)
    optimizer = braintools.optim.Adam(lr=scheduler)
    optimizer.register_trainable_weights({"w": brainstate.ParamState(jnp.ones(2))})
    optimizer.add_param_group({"v": brainstate.ParamState(jnp.ones(2))})
    optimizer.add_param_group({"u": brainstate.ParamState(jnp.ones(2))}, lr=0.25)
    assert scheduler.base_lrs == [1.0, 0.5, 0.25]

    def step(_):
        scheduler.step()
        return jnp.stack([group["lr"].value for group in optimizer.param_groups])

    seen = [step(0) for _ in range(3)]
    seen += list(jit(lambda: for_loop(step, jnp.arange(7)))())
    by_hand = np.minimum(np.arange(1, 11) / 8, 1)[:, None] * [1.0, 0.5, 0.25]
    np.testing.assert_array_equal(np.stack(seen), by_hand.astype(np.float32))


def test_resumed_within_an_epoch_it_goes_on_as_if_never_stopped():
    part = CosineAnnealingLR(0.1, 7)
    stopped, resumed = PerUpdate(part, 3, last_epoch=4), PerUpdate(part, 3)
    stopped.step()
    resumed.load_state_dict(pickle.loads(pickle.dumps(stopped.state_dict())))
    assert resumed.epoch == 5
    assert resumed.get_last_lr() == [np.float32(0.1 * (1 + np.cos(np.pi * 5 / 21)) / 2)]
    with pytest.warns(UserWarning, match="steps_per_epoch changed"):
        PerUpdate(part, 4).load_state_dict(stopped.state_dict())


def test_optax_counts_updates():
    schedule = PerUpdate(WarmupScheduler(0.5, 1), 8).as_optax()
    tx = optax.scale_by_schedule(schedule)
    state = tx.init(jnp.ones(()))
    scales = []
    for _ in range(10):
        update, state = tx.update(jnp.ones(()), state)
        scales.append(update.item())
    assert scales == [0.5 * min(n / 8, 1) for n in range(10)]


def test_config_repr_and_plot_of_a_stretched_schedule_show_the_part():
    scheduler = PerUpdate(StepLR(0.5, 2), 100, last_epoch=7)
    assert repr(scheduler) == (
        "PerUpdate(scheduler=StepLR(base_lr=0.5, step_size=2, gamma=0.1), steps_per_epoch=100, "
        "staircase=False, last_epoch=7)  # rates: 0.5; no optimizer"
    )
    config = scheduler.config
    assert config["scheduler"]["class"] == "StepLR"
    rebuilt = from_config(config)
    assert rebuilt.config == config
    assert rebuilt.lr_at(200).item() == np.float32(0.05)

    figure = plt.figure()
    marks = PerUpdate(MultiStepLR(0.5, [2, 5]), 10).plot(40, figure.add_subplot()).lines[1:]
    assert [np.unique(mark.get_xdata()).tolist() for mark in marks] == [[20]]
    plt.close(figure)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0.1, 100), TypeError, "scheduler must be a scheduler of brainsched, got float"),
        ((ReduceLROnPlateau(), 100), TypeError, "scheduler needs a rate that is a function"),
        ((StepLR(), 0), ValueError, "steps_per_epoch must be above 0, got 0"),
        ((StepLR(), 100, 1), TypeError, "staircase must be True or False, got 1"),
    ],
)
def test_bad_arguments_of_a_stretch_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        PerUpdate(*arguments)
