"""The picture of the README, drawn by the example that it names."""

import pathlib
import subprocess
import sys

import matplotlib.image
import matplotlib.pyplot as plt
import pytest

pytestmark = pytest.mark.slow

EXAMPLE = pathlib.Path(__file__).parents[1] / "examples" / "gallery.py"


def test_it_draws_every_schedule_as_the_committed_picture_shows_them(tmp_path):
    out = tmp_path / "schedules.png"
    command = [sys.executable, "-W", "error", str(EXAMPLE), "--out", str(out)]
    subprocess.run(command, check=True, capture_output=True)
    drawn, committed = (matplotlib.image.imread(p) for p in (out, EXAMPLE.with_suffix(".png")))
    assert drawn.shape == committed.shape
    plt.close("all")
