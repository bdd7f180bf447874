"""A run that is saved, and restored in a new process, ends with the bits of one never stopped.

Through every channel, at an epoch inside a stage, on a boundary and one before it; with one param
group, with two, and with one that was added on the way; with and without a rate set by hand just
before saving. ``resumed_run.py`` trains; the tests compare what it left.
"""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import resumed_run

pytestmark = pytest.mark.slow

PROGRAM = Path(resumed_run.__file__)
STOP_NAMES = {stop: name for name, stop in resumed_run.STOPS.items()}


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    # Many runs compile the same programs; each process takes them from the first one's files.
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    results = []
    for verb in ("save", "restore"):
        finished = subprocess.run(
            [sys.executable, "-W", "error", str(PROGRAM), verb, str(folder)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert finished.returncode == 0, finished.stderr
        results.append(pickle.loads((folder / f"{verb}.ends").read_bytes()))
    return results


def bits(array):
    array = np.asarray(array)
    return str(array.dtype), array.shape, array.tobytes()


def name_of(case):
    hand = "rate_set_by_hand" if case.hand else "scheduled_rate"
    return f"{case.channel}-{case.groups}_group-{STOP_NAMES[case.stop]}-{hand}"


@pytest.mark.parametrize("case", resumed_run.CASES, ids=name_of)
def test_resumed_in_a_new_process_it_ends_with_the_same_bits(ends, case):
    never_stopped, resumed = ends
    end, rates = resumed[tuple(case)]
    expected_end, expected_rates = never_stopped[case.groups, case.stop, case.hand]
    assert len(rates) == resumed_run.EPOCHS - case.stop
    assert [list(map(bits, r)) for r in rates] == [
        list(map(bits, r)) for r in expected_rates[case.stop :]
    ]
    assert list(end) == list(expected_end)
    different = [name for name in end if bits(end[name]) != bits(expected_end[name])]
    assert different == []


def test_the_runs_applied_the_rates_that_the_cases_speak_of(ends):
    never_stopped, _ = ends
    multipliers = [1.0] * 4 + [0.3] * 3 + [0.03] * 2
    for (groups, stop, hand), (_, rates) in never_stopped.items():
        body = [0.1 * multiplier for multiplier in multipliers]
        if hand:
            body[stop] = resumed_run.BY_HAND
        assert [rate[0] for rate in rates] == np.array(body, np.float32).tolist()
        joined = {"one": 9, "several": 0, "midway": resumed_run.ADDED_AT}[groups]
        assert [len(rate) for rate in rates] == [1] * joined + [2] * (9 - joined)
        head = [rate[1] for rate in rates[joined:]]
        assert head == np.array([0.2 * m for m in multipliers[joined:]], np.float32).tolist()
