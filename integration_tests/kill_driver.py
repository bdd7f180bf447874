"""Kill a training run at random moments, start it again each time, and compare where it ends.

    python integration_tests/kill_driver.py --kills 50

One kill in five falls anywhere in a process's life, starting up and restoring included; the others
while it trains and saves. Prints how many fell into a save, and fails unless the run ends with the
bits of one that was never stopped and its history has each epoch once. Takes about 10 s a kill.
"""

import argparse
import pickle
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

PROGRAM = Path(__file__).with_name("killed_run.py")
EPOCHS_PER_KILL = 5  # more than are trained between two kills


def _start(folder: Path, epochs: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(PROGRAM), str(folder), str(epochs)],
        stdout=subprocess.PIPE,
        text=True,
    )


def _finish(folder: Path, epochs: int) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    process = _start(folder, epochs)
    process.communicate(timeout=600)
    if process.returncode != 0:
        raise RuntimeError(f"the run failed with exit status {process.returncode}")
    arrays, history = pickle.loads((folder / "end").read_bytes())
    return arrays, history


def _unfinished(folder: Path) -> set[int]:
    """Return the folders of saves that never finished: Orbax renames a complete one."""
    return {path.stat().st_ino for path in folder.glob("checkpoints/*orbax-checkpoint-tmp*")}


def drive(folder: Path, kills: int, seed: int) -> int:
    """Kill a run ``kills`` times and compare its end; return how many kills fell into a save."""
    epochs = 15 + EPOCHS_PER_KILL * kills
    straight, interrupted = folder / "straight", folder / "interrupted"
    straight.mkdir(parents=True)
    interrupted.mkdir()
    moments = random.Random(seed)
    into_a_save = 0
    for kill in range(kills):
        before = _unfinished(interrupted)
        process = _start(interrupted, epochs)
        if kill % 5 == 4:
            time.sleep(moments.uniform(0.0, 5.0))
        else:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(moments.uniform(0.2, 1.2))
        process.kill()
        process.communicate()
        if process.returncode != -signal.SIGKILL:
            raise RuntimeError(f"run {kill} ended with {process.returncode} before it was killed")
        into_a_save += bool(_unfinished(interrupted) - before)

    arrays, history = _finish(interrupted, epochs)
    expected, expected_history = _finish(straight, epochs)
    if [entry["epoch"] for entry in history] != list(range(epochs)):
        raise AssertionError(f"the history does not have each epoch once: {history}")
    if history != expected_history:
        raise AssertionError("the history is not that of the run that was never stopped")
    if arrays.keys() != expected.keys():
        raise AssertionError(f"{sorted(arrays)} differ from {sorted(expected)}")
    for name, array in arrays.items():
        if array.dtype != expected[name].dtype or array.tobytes() != expected[name].tobytes():
            raise AssertionError(f"{name} has other bits than in the run that was never stopped")
    return into_a_save


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        into_a_save = drive(Path(folder) / "runs", arguments.kills, arguments.seed)
    print(
        f"{arguments.kills} kills, {into_a_save} of them into a save: it ended with the bits of "
        f"the run that was never stopped, and each epoch once in its history"
    )
