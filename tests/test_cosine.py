"""Cosines: what their reference rows do not show."""

import math

import jax
import numpy as np
import pytest

from brainsched import CosineAnnealingLR, CosineAnnealingWarmRestarts, WarmupCosineSchedule
from schedule_references import units_apart


def test_the_end_of_a_long_cosine_keeps_its_digits():
    length = 10**6
    expected = np.float32(0.1 * math.sin(math.pi / (2 * length)) ** 2)
    naive = np.float32(0.1 * (1 + math.cos(math.pi * (length - 1) / length)) / 2)
    scheduler = CosineAnnealingLR(0.1, length)
    assert scheduler.lr_at(length - 1).item() == expected
    assert jax.jit(scheduler.lr_at)(length - 1).item() == expected
    assert units_apart(naive, expected) > 10


def test_a_peak_that_decays_stays_on_its_side_of_eta_min():
    scheduler = CosineAnnealingWarmRestarts(0.3, 10, eta_min=0.1, decay=0.5)
    np.testing.assert_allclose(scheduler.lr_at([0, 10, 20, 300])[:, 0], [0.3, 0.2, 0.15, 0.1])


def test_a_warm_up_that_is_longer_than_the_whole_is_refused():
    message = "warmup_steps must be at most total_steps, which is 100, got 200"
    with pytest.raises(ValueError, match=message):
        WarmupCosineSchedule(warmup_steps=200, total_steps=100)
