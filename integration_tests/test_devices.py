"""Runs sharded over 8 devices, and over 2 processes, and resumed on another number of devices.

``device_run.py`` is the program; it also asserts that the scheduler's States stay replicated, that
the step is traced once, and that a compiled step moves nothing between host and device.
"""

import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PROGRAM = Path(__file__).with_name("device_run.py")
RATES = np.array([[0.1, 0.2]] * 3 + [[0.03, 0.06]] * 2 + [[0.003, 0.006]] * 3, np.float32)
STOP = 4
EPOCHS = 8


def run(folder, name, begin, end, devices, processes=1):
    """Run the program on ``processes`` processes of ``devices`` devices; return their results."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    started = []
    for process in range(processes):
        command = [sys.executable, str(PROGRAM), str(folder), name, str(begin), str(end)]
        if processes > 1:
            command += [str(process), str(processes), str(port)]
        started.append(
            subprocess.Popen(command, env=os.environ | flags, stderr=subprocess.PIPE, text=True)
        )
    for one in started:
        _, errors = one.communicate(timeout=300)
        assert one.returncode == 0, errors
    return [pickle.loads((folder / f"{name}.{i}").read_bytes()) for i in range(processes)]


def assert_trained(results, begin, end, devices):
    for result in results:
        assert result["devices"] == devices
        assert result["epoch"] == end
        np.testing.assert_array_equal(result["rates"], RATES[begin:end])


def assert_same_weights(results, expected):
    for result in results:
        for key, weight in expected["weights"].items():
            np.testing.assert_allclose(result["weights"][key], weight, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def on_one_device(tmp_path_factory):
    (result,) = run(tmp_path_factory.mktemp("one"), "straight", 0, EPOCHS, devices=1)
    return result


@pytest.mark.parametrize(
    ("saved_on", "restored_on"),
    [((8, 1), (2, 1)), ((2, 2), (8, 1)), ((8, 1), (2, 2))],
    ids=["8_devices_then_2", "2_processes_then_8_devices", "8_devices_then_2_processes"],
)
def test_resumed_on_other_devices_it_has_the_same_rates_and_weights_within_rounding(
    on_one_device, tmp_path, saved_on, restored_on
):
    first = run(tmp_path, "first", 0, STOP, *saved_on)
    assert_trained(first, 0, STOP, saved_on[0] * saved_on[1])
    rest = run(tmp_path, "rest", STOP, EPOCHS, *restored_on)
    assert_trained(rest, STOP, EPOCHS, restored_on[0] * restored_on[1])
    assert_same_weights(rest, on_one_device)


def test_sharded_over_eight_devices_without_a_stop(on_one_device, tmp_path):
    results = run(tmp_path, "straight", 0, EPOCHS, devices=8)
    assert_trained(results, 0, EPOCHS, 8)
    assert_same_weights(results, on_one_device)
