"""CyclicLR and OneCycleLR: what their reference rows do not show."""

import numpy as np

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
