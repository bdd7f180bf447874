"""A picture of a schedule."""

from typing import TYPE_CHECKING, Any

import numpy as np

from brainsched import checks
from brainsched.core import arguments

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot(scheduler: Any, epochs: int, ax: "Axes | None") -> "Axes":
    """Draw the rates of ``scheduler``: see :meth:`LRScheduler.plot`."""
    import matplotlib.pyplot as plt  # only here: a training run does not pay for it

    scheduler._require_pure("plot()")
    if checks.epoch_number("epochs", epochs) == 0:
        raise ValueError("epochs must be at least 1, got 0")
    if ax is None:
        ax = plt.figure(layout="constrained").add_subplot()
    rates = np.asarray(scheduler.lr_at(np.arange(epochs)))
    names = scheduler.group_names
    for group in range(rates.shape[1]):
        name = names[group] if group < len(names) else f"group {group}"
        ax.step(np.arange(epochs), rates[:, group], where="post", label=name)
    for boundary in scheduler.stage_boundaries:
        if 0 < boundary < epochs:
            ax.axvline(boundary, color="0.8", linewidth=0.8, linestyle="--", zorder=0)
    positive = rates[rates > 0]
    if positive.size and positive.max() >= 100 * positive.min():
        _logarithmic(ax, float(positive.min()), bool((rates == 0).any()))
    unit = "epoch" if arguments.counts_updates(scheduler) is None else "update"
    ax.set(xlabel=unit, ylabel="learning rate", title=type(scheduler).__name__)
    if rates.shape[1] > 1:
        ax.legend()
    return ax


def _logarithmic(ax: "Axes", smallest: float, with_zero: bool) -> None:
    if with_zero:  # which has no logarithm
        ax.set_yscale("symlog", linthresh=smallest)
        ax.set_ylim(bottom=0)
    else:
        ax.set_yscale("log")
