"""Stages and powers: what their reference rows do not show."""

import math
from fractions import Fraction

import jax
import numpy as np
import pytest

from brainsched import ExponentialDecayLR, ExponentialLR, MultiStepLR, StepLR
from schedule_references import LAST, rounded, units_apart


@pytest.mark.parametrize(
    "scheduler",
    [
        ExponentialLR(0.5, 1 - 2**-26),
        StepLR(0.5, 1, 1 - 2**-26),
        ExponentialDecayLR(0.5, 1, 1 + 2**-26),
        ExponentialDecayLR(0.5, 1, 1 + 2**-26, staircase=True),
    ],
    ids=["calculated", "looked-up", "calculated, rising", "looked-up, rising"],
)
def test_powers_near_one_are_right_at_any_epoch(scheduler):
    logarithm = math.log1p(2**-26 if type(scheduler) is ExponentialDecayLR else -(2**-26))
    asked = np.random.default_rng(0).integers(0, LAST, 2000).astype(np.int32)
    expected = rounded([[0.5 * math.exp(int(t) * logarithm)] for t in asked])
    on_host = scheduler.lr_at(asked)
    assert units_apart(on_host, expected).max() <= 1
    np.testing.assert_array_equal(jax.jit(scheduler.lr_at)(asked), on_host)


def test_milestones_that_do_not_ascend_are_refused():
    message = r"milestones must be in ascending order .* got milestones\[2\] = 30 after 60"
    with pytest.raises(ValueError, match=message):
        MultiStepLR(0.1, [10, 60, 30])


# Lengths and boundaries between whole epochs


@pytest.mark.parametrize("updates", [5, 10, 30])
@pytest.mark.parametrize("length", ["2.4", "1.7", "0.3"])
def test_a_period_between_whole_epochs_ends_at_the_update_that_is_exactly_there(length, updates):
    count = np.arange(int(90 * float(length) * updates))
    falls = [Fraction(int(update), updates) // Fraction(length) for update in count]
    rates = StepLR(1.0, float(length), gamma=0.5).lr_at(count / updates)
    np.testing.assert_array_equal(rates[:, 0], np.float32(0.5) ** np.array(falls))


def test_a_boundary_between_whole_epochs_is_reached_a_little_early_and_a_whole_one_exactly():
    between = MultiStepLR(1.0, milestones=[2.4], gamma=0.5)
    assert between.lr_at([2.4 * (1 - 2**-40), 2.4 * (1 - 2**-50), 2.4]).ravel().tolist() == [
        1,
        0.5,
        0.5,
    ]
    whole = MultiStepLR(1.0, milestones=[30], gamma=0.5)
    assert whole.lr_at([np.nextafter(30.0, 0.0), 30.0]).ravel().tolist() == [1, 0.5]
