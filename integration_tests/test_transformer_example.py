"""examples/flax_transformer.py as a user runs it: from the start, and killed and started again."""

import math
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from pydoc_data.topics import topics

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[1] / "examples" / "flax_transformer.py"
EPOCHS, UPDATES = 4, 20


def command(folder, *arguments):
    small = ["--epochs", str(EPOCHS), "--updates", str(UPDATES)]
    run = [sys.executable, "-W", "error", str(EXAMPLE), "--folder", str(folder)]
    return [*run, *(arguments or small)]


def run(folder, *arguments):
    finished = subprocess.run(
        command(folder, *arguments), capture_output=True, text=True, timeout=300, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def kill_once_a_checkpoint_appears(folder, epoch):
    process = subprocess.Popen(command(folder), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        if (folder / str(epoch)).exists():
            break
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"


def last_checkpoint(folder):
    with ocp.CheckpointManager(folder) as manager:
        step = manager.latest_step()
        restored = manager.restore(
            step,
            args=ocp.args.Composite(state=ocp.args.PyTreeRestore(), history=ocp.args.JsonRestore()),
        )
    return step, restored["state"], restored["history"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    return folder, run(folder)


# The tests read arrays back without saying where to put them, on the machine that saved them.
anywhere = pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning")


@anywhere
def test_every_layer_warms_up_and_falls_at_every_update_at_a_rate_of_its_own(uninterrupted):
    folder, printed = uninterrupted
    _, _, history = last_checkpoint(folder)
    for epoch, entry in enumerate(history):
        time_of_update = ((epoch + 1) * UPDATES - 1) / UPDATES
        share = (
            time_of_update
            if time_of_update < 1
            else (1 + math.cos(math.pi * (time_of_update - 1) / (EPOCHS - 1))) / 2
        )
        names = ["embedding", "blocks/0", "blocks/1", "blocks/2", "head"]
        expected = {name: 4e-3 * 0.8 ** (4 - i) * share for i, name in enumerate(names)}
        assert entry["rates"] == pytest.approx(expected, rel=1e-6)
        shown = re.search(rf"^epoch {epoch}: .* rates: (.*)$", printed, re.MULTILINE)
        assert shown is not None
        assert shown[1] == ", ".join(f"{name} {rate:.2e}" for name, rate in expected.items())


@anywhere
def test_it_predicts_better_than_how_often_each_character_occurs(uninterrupted):
    text = "\n".join(topics[name] for name in sorted(topics))
    held_out = text[-64 * 65 :]
    counts = Counter(text)
    by_frequency = -sum(math.log(counts[c] / len(text)) for c in held_out) / len(held_out)
    _, _, history = last_checkpoint(uninterrupted[0])
    losses = [entry["held_out_loss"] for entry in history]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < by_frequency - 0.25


@anywhere
def test_killed_twice_and_started_again_it_ends_with_the_same_bits(uninterrupted, tmp_path):
    kill_once_a_checkpoint_appears(tmp_path, 0)
    kill_once_a_checkpoint_appears(tmp_path, 2)
    assert "resumed after" in run(tmp_path)

    step, state, history = last_checkpoint(tmp_path)
    expected_step, expected_state, expected_history = last_checkpoint(uninterrupted[0])
    assert step == expected_step == EPOCHS - 1
    assert history == expected_history
    assert [entry["epoch"] for entry in history] == list(range(EPOCHS))
    jax.tree.map(np.testing.assert_array_equal, state, expected_state)
    assert len(jax.tree.leaves(state)) > 100


def test_started_again_with_another_schedule_it_says_so(uninterrupted):
    folder, _ = uninterrupted
    longer = command(folder, "--epochs", str(EPOCHS + 2), "--updates", str(UPDATES))
    started = subprocess.run(longer, capture_output=True, text=True, timeout=300, check=False)
    assert started.returncode == 1  # as warnings are errors
    assert "UserWarning: the schedule changed since the optimizer was saved" in started.stderr
