"""CyclicLR and OneCycleLR: what their reference rows do not show."""

import jax.numpy as jnp
import numpy as np
import pytest

from brainsched import CyclicLR, OneCycleLR


def test_an_upper_rate_for_each_group_and_the_last_one_for_the_rest():
    scheduler = CyclicLR([0.1, 0.2, 0.3], [0.5, 0.6], step_size_up=2)
    np.testing.assert_array_equal(scheduler.lr_at(2), np.array([0.5, 0.6, 0.6], np.float32))
    scheduler = CyclicLR(0.1, [0.5, 0.6], step_size_up=2)
    np.testing.assert_array_equal(scheduler.lr_at(2), np.array([0.5], np.float32))


def test_total_steps_come_before_epochs_as_documented():
    scheduler = OneCycleLR(total_steps=50, epochs=5, steps_per_epoch=100)
    assert scheduler.total_steps == 50
    assert OneCycleLR(epochs=5, steps_per_epoch=100).total_steps == 500


def test_step_size_down_is_that_of_the_way_up_unless_given():
    assert CyclicLR(step_size_up=7).step_size_down == 7
    assert CyclicLR(step_size_up=7, step_size_down=9).step_size_down == 9


BAD = [
    (OneCycleLR, {}, ValueError, r"needs total_steps or both epochs and steps_per_epoch"),
    (OneCycleLR, {"epochs": 5}, ValueError, r"needs total_steps or both epochs and steps_per_"),
    (OneCycleLR, {"steps_per_epoch": 5}, ValueError, r"needs total_steps or both epochs and"),
    (OneCycleLR, {"epochs": 0, "steps_per_epoch": 5}, ValueError, r"epochs must be above 0, got 0"),
    (
        OneCycleLR,
        {"epochs": 2**16, "steps_per_epoch": 2**16},
        ValueError,
        r"epochs \* steps_per_epoch must be at most 2\.147e\+09, got 4294967296",
    ),
    (CyclicLR, {"max_lr": -1}, ValueError, r"max_lr must be finite and not negative, got -1"),
    (OneCycleLR, {"max_lr": np.inf, "total_steps": 9}, ValueError, r"^max_lr must be finite"),
    (
        CyclicLR,
        {"scale_fn": lambda cycle: jnp.ones(2)},
        ValueError,
        r"the result of scale_fn must be a scalar, got an array of shape \(2,\)",
    ),
]


@pytest.mark.parametrize(("cls", "arguments", "error", "message"), BAD)
def test_bad_arguments_are_refused(cls, arguments, error, message):
    with pytest.raises(error, match=message):
        cls(**arguments)
