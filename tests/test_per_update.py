"""A schedule in epochs that is stepped once an update, with the quotient that is exact."""

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
from hypothesis import given
from hypothesis import strategies as st

import brainsched
from brainsched import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    LRScheduler,
    MultiStepLR,
    PerUpdate,
    PiecewiseConstantSchedule,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
    WarmupCosineSchedule,
    WarmupScheduler,
)

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


@given(st.integers(1, 50), st.integers(0, 40))
def test_at_whole_epochs_the_rates_are_the_parts(steps_per_epoch, epoch):
    part = CosineAnnealingLR(0.1, 33, 0.01)
    rates = PerUpdate(part, steps_per_epoch).lr_at(epoch * steps_per_epoch)
    np.testing.assert_array_equal(rates, part.lr_at(epoch))


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


def test_config_repr_and_plot_show_the_part():
    scheduler = PerUpdate(StepLR(0.5, 2), 100, last_epoch=7)
    assert repr(scheduler) == (
        "PerUpdate(scheduler=StepLR(base_lr=0.5, step_size=2, gamma=0.1), steps_per_epoch=100, "
        "staircase=False, last_epoch=7)  # rates: 0.5; no optimizer"
    )
    config = scheduler.config
    assert config["scheduler"]["class"] == "StepLR"
    rebuilt = brainsched.from_config(config)
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
        (([StepLR()], 100), TypeError, "scheduler must be a scheduler of brainsched, got list"),
        ((braintools.optim.StepLR(), 100), TypeError, "scheduler must be a scheduler of brainsch"),
        ((ReduceLROnPlateau(), 100), TypeError, "scheduler needs a rate that is a function"),
        ((StepLR(), 0), ValueError, "steps_per_epoch must be above 0, got 0"),
        ((StepLR(), -1.5), ValueError, "steps_per_epoch must be finite and not negative, got -1.5"),
        ((StepLR(), True), TypeError, "steps_per_epoch must be a number, got True"),
        ((StepLR(), 100, 1), TypeError, "staircase must be True or False, got 1"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        PerUpdate(*arguments)
