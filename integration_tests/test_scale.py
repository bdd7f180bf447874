"""What docs/guides/many-machines.md says that a schedule costs on many devices, counted."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("scale_run.py")


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    finished = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path_factory.mktemp("scale"))],
        env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


def test_a_schedule_adds_no_exchange_between_devices(counted):
    assert counted["with"] == counted["without"] > 0


def test_its_states_are_one_count_and_a_rate_for_each_group(counted):
    assert counted["bytes"] == 4 * (1 + 3)


def test_what_eight_devices_hold_is_written_once(counted):
    assert 0.8 * 2**22 < counted["written"] < 1.2 * 2**22


def test_rates_that_are_split_among_devices_are_looked_at(counted):
    assert counted["complaint"].startswith("current_lrs[0] must be finite and not negative, got [")
