"""examples/many_machines.py: over several devices and processes, resumed on another number of them.

The example itself raises where a compiled epoch moves something between host and device.
"""

import ast
import importlib.util
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "many_machines.py"
BODY = np.array([0.002] * 3 + [0.0006] * 2 + [0.00006] * 3, np.float32)
HEAD = np.array([0.004] * 3 + [0.0012] * 2 + [0.00012] * 3, np.float32)
STOP = 4
EPOCHS = 8
# Two layers, of which each parameter has two moments. Their matrices are split; their biases, and
# ten single numbers, are not: the position, two rates, and the counts of braintools and optax.
SPLIT = f"6 arrays, {4 * 3 * (64 * 256 + 256 * 10)} bytes in all"
ON_EACH = f"16 arrays, {4 * 3 * (256 + 10) + 4 * 10} bytes, of which position and rates are {4 * 3}"


@pytest.fixture(scope="module")
def start_here():
    specification = importlib.util.spec_from_file_location("many_machines", EXAMPLE)
    assert specification is not None
    assert specification.loader is not None
    example = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(example)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONWARNINGS", "error")
        yield example.start_here


def assert_trained(printed, begin, end, processes, devices):
    assert len(printed) == processes
    first, *_ = printed
    assert f"processes: {processes}, devices: {processes * devices}, epoch: {begin}\n" in first
    assert first.count("compiling an epoch") == 1
    for number, text in enumerate(printed):
        for name, rates in (("body", BODY), ("head", HEAD)):
            applied = re.search(rf"process {number}, {name}: (.*)", text)
            assert applied is not None
            found = np.array(applied[1].split(), np.float32)
            np.testing.assert_array_equal(found, rates[begin:end])
    if processes * devices > 1:
        assert f"split among the devices: {SPLIT}\n" in first
        assert f"replicated, on each device: {ON_EACH}\n" in first


def read(folder):
    """Return the arrays of the last checkpoint."""
    handler = ocp.PyTreeCheckpointHandler()
    with ocp.CheckpointManager(folder, item_handlers=handler) as checkpoints:
        assert checkpoints.latest_step() == EPOCHS - 1
        tree = checkpoints.item_metadata(EPOCHS - 1).tree
        arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
        return checkpoints.restore(EPOCHS - 1, args=ocp.args.PyTreeRestore(restore_args=arguments))


def assert_same_end(folder, expected):
    found = read(folder)
    assert found["_lr_scheduler.last_epoch"] == EPOCHS
    assert [*found["_lr_scheduler._current_lrs"]] == [BODY[-1], HEAD[-1]]
    jax.tree.map(
        lambda value, other: np.testing.assert_allclose(value, other, rtol=1e-3, atol=1e-4),
        found,
        expected,
    )


@pytest.fixture(scope="module")
def on_one_device(start_here, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    assert_trained(start_here(folder, EPOCHS, 1, 1), 0, EPOCHS, 1, 1)
    return read(folder)


@pytest.mark.parametrize(
    ("saved_on", "restored_on"),
    [((1, 8), (1, 2)), ((1, 8), (2, 2))],
    ids=["8_devices_then_2", "8_devices_then_2_processes"],
)
def test_resumed_on_other_devices_it_has_the_same_rates_and_weights_within_rounding(
    start_here, on_one_device, tmp_path, saved_on, restored_on
):
    assert_trained(start_here(tmp_path, STOP, *saved_on), 0, STOP, *saved_on)
    assert_trained(start_here(tmp_path, EPOCHS, *restored_on), STOP, EPOCHS, *restored_on)
    assert_same_end(tmp_path, on_one_device)


def test_split_over_eight_devices_without_a_stop(start_here, on_one_device, tmp_path):
    assert_trained(start_here(tmp_path, EPOCHS, 1, 8), 0, EPOCHS, 1, 8)
    assert_same_end(tmp_path, on_one_device)


def without_file_sizes(text):
    return re.sub(r"files of \d+ kB", "files of N kB", text)


def test_by_itself_it_goes_from_two_processes_to_one_and_prints_what_its_docstring_shows(
    on_one_device, tmp_path
):
    finished = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLE), f"--folder={tmp_path}"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert_same_end(tmp_path, on_one_device)
    docstring = ast.get_docstring(ast.parse(EXAMPLE.read_text())) or ""
    shown = textwrap.dedent(docstring.partition("It prints:\n\n")[2])
    assert without_file_sizes(finished.stdout.strip()) == without_file_sizes(shown)
    # Four devices hold 240 kB: 227 kB once, and 3 kB each. Written once, and named, it is as much.
    sizes = [int(size) for size in re.findall(r"files of (\d+) kB", finished.stdout)]
    assert len(sizes) == 2
    assert all(200 < size < 280 for size in sizes)


def test_a_process_that_fails_is_not_taken_for_one_that_trained(start_here, tmp_path, capfd):
    with pytest.raises(SystemExit, match="a process failed"):
        start_here(tmp_path, "many", 1, 1)
    assert "invalid int value: 'many'" in capfd.readouterr().err
