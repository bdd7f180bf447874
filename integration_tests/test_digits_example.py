"""examples/digits.py as a user runs it: from the start, and killed and resumed."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[1] / "examples" / "digits.py"
EPOCHS = 18  # three beyond the first boundary


def command(output, *arguments):
    return [sys.executable, "-W", "error", str(EXAMPLE), "--output", str(output), *arguments]


def run(output, *arguments):
    finished = subprocess.run(
        command(output, *arguments), capture_output=True, text=True, timeout=300, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def kill_once_a_checkpoint_appears(output, epoch, *arguments):
    process = subprocess.Popen(command(output, *arguments), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if (output / "checkpoints" / str(epoch)).exists():
            break
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"


def last_checkpoint(output):
    with ocp.CheckpointManager(output / "checkpoints") as manager:
        step = manager.latest_step()
        restored = manager.restore(
            step,
            args=ocp.args.Composite(state=ocp.args.PyTreeRestore(), history=ocp.args.JsonRestore()),
        )
    return step, restored["state"], restored["history"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    output = tmp_path_factory.mktemp("uninterrupted")
    run(output, "--epochs", str(EPOCHS))
    return output


def test_it_reaches_97_percent_and_prints_the_rates_of_each_stage(tmp_path):
    printed = run(tmp_path)
    (accuracy,) = re.findall(r"test accuracy ([\d.]+)%", printed)
    assert float(accuracy) >= 97
    rows = re.findall(r"│ (\d) +│ (\d+-\d+) +│ (\S+) +│ (\S+) +│ \S+ +│ +[\d.]+% +│", printed)
    assert rows == [
        ("0", "0-14", "2.00e-03", "1.00e-03"),
        ("1", "15-24", "6.00e-04", "3.00e-04"),
        ("2", "25-29", "6.00e-05", "3.00e-05"),
    ]
    assert "wall time" in printed
    picture = (tmp_path / "digits.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000


# The test reads arrays back without saying where to put them, on the machine that saved them.
@pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")
def test_killed_twice_and_resumed_it_ends_with_the_same_bits(uninterrupted, tmp_path):
    epochs = ("--epochs", str(EPOCHS))
    kill_once_a_checkpoint_appears(tmp_path, 3, *epochs)
    kill_once_a_checkpoint_appears(tmp_path, 14, *epochs, "--resume")
    assert "resumed after" in run(tmp_path, *epochs, "--resume")

    step, state, history = last_checkpoint(tmp_path)
    expected_step, expected_state, expected_history = last_checkpoint(uninterrupted)
    assert step == expected_step == EPOCHS - 1
    assert history == expected_history
    assert [entry["epoch"] for entry in history] == list(range(EPOCHS))
    body = np.array([2e-3] * 15 + [2e-3 * 0.3] * 3, np.float32)
    assert [entry["rates"][0] for entry in history] == body.tolist()
    jax.tree.map(np.testing.assert_array_equal, state, expected_state)
    assert state["scheduler"]["last_epoch"] == EPOCHS


def test_without_resume_it_starts_afresh(tmp_path):
    run(tmp_path, "--epochs", "2")
    assert "resumed" not in run(tmp_path, "--epochs", "1")
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["0"]
