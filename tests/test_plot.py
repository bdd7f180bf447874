"""Pictures, as Matplotlib describes them."""

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt

from brainsched import (
    WSD,
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    MultiStepLR,
    PerUpdate,
    PiecewiseConstantSchedule,
    SequentialLR,
    StepLR,
    WarmupCosineSchedule,
    WarmupScheduler,
)


@pytest.fixture(autouse=True)
def _no_screen():
    matplotlib.use("agg")
    yield
    plt.close("all")


def marks(ax) -> list[float]:
    return [line.get_xdata()[0] for line in ax.lines if line.get_linestyle() == "--"]


def test_boundaries_are_marked_that_lie_within_the_plot():
    scheduler = PiecewiseConstantSchedule(0.5, [0, 1, 9, 10, 11], [1.0, 1.0, 0.5, 1.0, 0.5, 1.0])
    assert marks(scheduler.plot(10)) == [1, 9]


def test_a_line_for_each_group_and_a_mark_for_each_boundary():
    scheduler = PiecewiseConstantSchedule([0.5, 0.25], [3, 6, 20], [1.0, 0.5, 0.25, 0.1])
    ax = scheduler.plot(10)
    lines = [line for line in ax.lines if line.get_linestyle() == "-"]
    assert len(lines) == 2
    np.testing.assert_array_equal(lines[0].get_xdata(), np.arange(10))
    np.testing.assert_array_equal(lines[1].get_ydata(), [0.25] * 3 + [0.125] * 3 + [0.0625] * 4)
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.texts] == ["group 0", "group 1"]
    assert marks(ax) == [3, 6]
    assert ax.get_yscale() == "linear"


def test_groups_have_their_names():
    legend = StepLR({"body": 0.1, "head": 0.01}, 3).plot(10).get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.texts] == ["body", "head"]


def test_the_axis_counts_updates_where_the_position_does():
    part = StepLR(0.1)
    updates = PerUpdate(part, 4)
    assert part.plot(5).get_xlabel() == "epoch"
    for scheduler in (updates, SequentialLR([updates, updates], [8])):
        assert scheduler.plot(5).get_xlabel() == "update"


def test_it_draws_where_it_is_told():
    _, axes = plt.subplots(2)
    assert ConstantLR(0.1).plot(5, ax=axes[1]) is axes[1]
    assert not axes[0].lines


@pytest.mark.parametrize(
    ("values", "scale"),
    [([1.0, 0.011], "linear"), ([1.0, 0.01], "log"), ([0.0, 1.0, 0.01], "symlog")],
)
def test_rates_that_span_decades_are_drawn_on_a_logarithmic_axis(values, scale):
    scheduler = PiecewiseConstantSchedule(1.0, list(range(1, len(values))), values)
    ax = scheduler.plot(5)
    assert ax.get_yscale() == scale
    if 0.0 in values:
        assert ax.get_ylim()[0] == 0


@pytest.mark.parametrize(
    ("scheduler", "boundaries"),
    [
        (MultiStepLR(0.1, [2, 5], 0.5), [2, 5]),
        (WarmupScheduler(0.1, 4), [4]),
        (WarmupScheduler(0.1, 0), []),
        (WarmupCosineSchedule(0.1, 3, 9), [3]),
        (WSD(0.1, 2, 3, 4), [2, 5]),
        (
            SequentialLR(
                [
                    WarmupScheduler(0.1, 3),
                    ChainedScheduler([MultiStepLR(0.1, [2, 9], 0.5), CosineAnnealingLR(0.1)]),
                    ConstantLR(0.1),
                ],
                [3, 9],
            ),
            [3, 5, 9],  # the second part's milestone 9 lies beyond its span
        ),
    ],
)
def test_stages_are_marked(scheduler, boundaries):
    assert marks(scheduler.plot(30)) == boundaries


@pytest.mark.parametrize("epochs", [0, -3, 2.5])
def test_a_number_of_epochs_that_is_none_is_refused(epochs):
    with pytest.raises(ValueError, match="epochs must"):
        ConstantLR(0.1).plot(epochs)


def test_one_line_needs_no_legend():
    assert ConstantLR(0.1).plot(5).get_legend() is None
