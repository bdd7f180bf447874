"""A run that is killed with SIGKILL at random moments, saving included, loses and repeats nothing.

``python integration_tests/kill_driver.py --kills 50`` is the longer form of this test.
"""

import json
import subprocess
import sys
from pathlib import Path

import kill_driver
import pytest

pytestmark = pytest.mark.slow

RESUME = Path(__file__).parents[1] / "examples" / "resume.py"


def test_killed_five_times_it_ends_with_the_bits_of_a_run_never_stopped(tmp_path):
    kill_driver.drive(tmp_path / "runs", kills=5, seed=1)


def run_example(folder, epochs):
    command = [sys.executable, "-W", "error", str(RESUME), "--folder", str(folder)]
    finished = subprocess.run(
        [*command, "--epochs", str(epochs)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.splitlines()


def test_the_example_goes_on_when_it_is_started_again(tmp_path):
    assert len(RESUME.read_text().splitlines()) < 80
    assert len(run_example(tmp_path, 19)) == 1
    for kept in (17, 18):  # Orbax writes in the background, while the run goes on
        saved = json.loads((tmp_path / str(kept) / "history" / "metadata").read_text())
        assert [entry["epoch"] for entry in saved] == list(range(kept + 1))
    resumed, end = run_example(tmp_path, 22)
    assert resumed == "resumed at epoch 19"
    assert end.startswith("22 epochs, PiecewiseConstantSchedule(")
    assert end.endswith("last_epoch=22)  # rates: 0.01")
