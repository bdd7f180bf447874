"""Stages and powers: what their reference rows do not show."""

import math

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
