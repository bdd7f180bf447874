"""Steps on the host, whose rates are evaluated for many epochs at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from brainsched import LRScheduler, PiecewiseConstantSchedule


class InverseLR(LRScheduler):
    """A rate that is infinite at epoch 50, and NaN beyond."""

    def formula(self, epoch, base_lrs, xp):
        return base_lrs / xp.sqrt(50.0 - epoch)


def inverse(epoch):
    return [np.float32(0.1 / np.sqrt(50 - epoch))]


@pytest.mark.parametrize("step", [1, 7, 63, 127, 128, 129, 200, -1, -7, -128])
def test_steps_of_any_length_forwards_and_backwards_give_the_rates_of_their_epochs(step):
    scheduler = PiecewiseConstantSchedule(0.5, range(1, 2000), np.arange(2000.0))
    for epoch in range(900, 900 + 4 * step, step):
        scheduler.step(epoch)
        assert scheduler.get_last_lr() == [epoch * 0.5]
        scheduler.step()
        assert scheduler.get_last_lr() == [(epoch + 1) * 0.5]


@pytest.mark.parametrize("boundary", [1, 127, 128, 129, 130, 255, 256, 257])
def test_a_stage_begins_at_its_boundary_wherever_the_evaluated_epochs_end(boundary):
    scheduler = PiecewiseConstantSchedule(0.5, [boundary], [1.0, 0.5])
    for epoch in range(300):
        assert scheduler.get_last_lr() == [0.25 if epoch >= boundary else 0.5]
        scheduler.step()


@pytest.mark.parametrize("epoch", [1, 127, 128, 129, 256])
def test_a_stage_of_one_epoch_has_its_rate_wherever_the_evaluated_epochs_end(epoch):
    scheduler = PiecewiseConstantSchedule(0.5, [epoch, epoch + 1], [1.0, 0.25, 1.0])
    rates = []
    for _ in range(300):
        rates += scheduler.applied_rates
        scheduler.step()
    assert rates == [0.125 if at == epoch else 0.5 for at in range(300)]


def test_a_rate_that_stays_is_the_very_same_array():
    scheduler = PiecewiseConstantSchedule(0.5, [400], [1.0, 0.5])
    first = scheduler.get_lr()[0]
    for _ in range(300):
        scheduler.step()
        assert scheduler.get_lr()[0] is first


def test_epochs_that_have_not_come_yet_neither_warn_nor_raise():
    scheduler = InverseLR(0.1)
    for epoch in range(50):
        assert scheduler.get_last_lr() == inverse(epoch)
        if epoch < 49:
            scheduler.step()
    for _ in range(2):
        with pytest.raises(ValueError, match=r"InverseLR gives .* inf at epoch 50"):
            scheduler.step(50)
        assert scheduler.epoch == 49
        assert scheduler.get_last_lr() == inverse(49)
    assert InverseLR(0.1, last_epoch=49).get_last_lr() == inverse(49)


def test_the_first_epochs_have_their_rates_in_float64_too():
    with jax.enable_x64(True):
        scheduler = PiecewiseConstantSchedule([0.3, 0.7], [1], [1.0, 0.25])
        assert scheduler.get_last_lr() == [0.3, 0.7]
        scheduler.step()
        assert scheduler.get_last_lr() == [0.3 * 0.25, 0.7 * 0.25]


def test_it_steps_up_to_the_largest_epoch():
    scheduler = PiecewiseConstantSchedule(0.5, [2**31 - 1], [1.0, 0.5], last_epoch=2**31 - 3)
    assert scheduler.get_last_lr() == [0.5]
    scheduler.step()
    scheduler.step()
    assert scheduler.get_last_lr() == [0.25]
    with pytest.raises(ValueError, match="cannot go beyond 2147483647"):
        scheduler.step()
    assert scheduler.epoch == 2**31 - 1
    assert scheduler.lr_at(jnp.uint32(2**32 - 1)).item() == 0.25
    scheduler.step(jnp.uint32(2**32 - 1))
    assert scheduler.epoch == 2**31 - 1


def test_a_formula_is_never_asked_for_an_epoch_below_zero_or_above_the_largest():
    asked = []

    class AskedLR(LRScheduler):
        def formula(self, epoch, base_lrs, xp):
            if xp is np:
                asked.extend(epoch.ravel().tolist())
            return base_lrs + 0 * epoch

    AskedLR(0.1, last_epoch=2**31 - 3).step()
    assert (min(asked), max(asked)) == (0, 2**31 - 1)


def test_rates_that_were_handed_out_cannot_be_changed_in_place():
    scheduler = PiecewiseConstantSchedule(0.5, [5], [1.0, 0.5])
    for rate in (scheduler.get_lr()[0], scheduler.get_last_lr()[0]):
        with pytest.raises(ValueError, match="read-only"):
            rate[...] = 3.0
    assert scheduler.get_lr() == [0.5]


def test_rates_are_in_the_dtype_of_the_moment():
    scheduler = PiecewiseConstantSchedule(0.1, [5], [1.0, 0.5])
    scheduler.step()
    with jax.enable_x64(True):
        assert scheduler.get_lr()[0].dtype == np.float64
        assert scheduler.get_lr() == [0.1]
    assert scheduler.get_lr()[0].dtype == np.float32
