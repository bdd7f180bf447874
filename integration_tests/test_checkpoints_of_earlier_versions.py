"""Checkpoints that earlier versions saved go on as if nothing had happened."""

import json
import pathlib

import numpy as np
import pytest
from saved_schedulers import BUILT, run

SAVED = json.loads((pathlib.Path(__file__).parent / "data" / "schedulers_0.1.0.json").read_text())


def test_every_scheduler_of_the_earlier_version_is_here():
    assert set(SAVED) == set(BUILT)


@pytest.mark.parametrize("name", BUILT)
def test_a_checkpoint_of_version_0_1_0_is_resumed_with_its_rates(name):
    saved, uninterrupted = SAVED[name], run(name)
    scheduler = BUILT[name]()
    scheduler.load_state_dict(saved)  # a schedule that had changed would warn
    assert scheduler.epoch == saved["last_epoch"] == 7
    np.testing.assert_array_equal(scheduler.get_last_lr(), np.float32(saved["current_lrs"]))
    np.testing.assert_array_equal(scheduler.get_lr(), np.float32(saved["scheduled_lrs"]))
    for _ in range(10):
        step = [1.5] if name == "ReduceLROnPlateau" else []
        scheduler.step(*step)
        uninterrupted.step(*step)
        np.testing.assert_array_equal(scheduler.get_last_lr(), uninterrupted.get_last_lr())
