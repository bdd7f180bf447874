"""What a learning-rate range test found: the curve, its picture, and what it suggests."""

import bisect
import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from brainsched.schedules import schedule_checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """A learning rate, and why it is suggested.

    Attributes
    ----------
    rate : float
        The rate, of the first param group.
    method : str
        How it was found.
    reason : str
        The feature of the curve that supports it, in a sentence.
    """

    rate: float
    method: str
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class RangeTest:
    """The curve of a learning-rate range test, up to where the loss diverged.

    Attributes
    ----------
    rates : float array of shape ``(counted,)``
        The rate of each step, of the first param group.
    losses : float array of shape ``(counted,)``
        The loss of each step's batch, before its update.
    smoothed : float array of shape ``(counted,)``
        Their exponential moving average, corrected for its start.
    diverged : bool
        Whether the test ended early because the loss diverged.
    """

    rates: Float[np.ndarray, " counted"]
    losses: Float[np.ndarray, " counted"]
    smoothed: Float[np.ndarray, " counted"]
    diverged: bool

    def suggest(self, method: str = "valley") -> Suggestion:
        """Suggest a rate from the smoothed curve, without its first tenth and last five points.

        Parameters
        ----------
        method : {'valley', 'steepest'}
            ``'valley'``: the middle, on the logarithmic axis, of the longest stretch over which
            the loss falls, ignoring rises in between. It is fastai's default, since a noisy step
            changes it little. A flat beginning, up to a hundredth of the fall, is left out:
            without noise, a loss falls from the first step on.
            ``'steepest'``: the rate at which the loss falls fastest.

        Returns
        -------
        Suggestion
            A rate to train at, or the largest one of a schedule.

        Raises
        ------
        TypeError, ValueError
            If ``method`` is neither of the two.
        ValueError
            If the loss did not fall, or diverged before there was a curve to read.

        References
        ----------
        Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, section 3.3: the
        test itself. ``fastai.callback.schedule.lr_find``: reading the rate off the curve.
        """
        schedule_checks.one_of("method", method, ["valley", "steepest"])
        kept = slice(len(self.rates) // 10, -5)
        rates, smoothed = self.rates[kept], self.smoothed[kept].astype(np.float64)
        if len(rates) < 5:
            raise ValueError(
                f"the loss diverged after {len(self.rates)} steps, which are too few to read a "
                f"rate from: begin at a lower start, or take more steps"
            )
        if smoothed.min() >= smoothed[0]:
            raise ValueError(
                f"the smoothed loss never fell below {smoothed[0]:.4g}, where it was at rate "
                f"{rates[0]:.2e}: no rate can be suggested. Does the training step minimise the "
                f"loss that it returns, and is end large enough?"
            )
        if method == "valley":
            begin, end = _longest_fall(smoothed)
            level = smoothed[begin] - 0.01 * (smoothed[begin] - smoothed[end])
            begin += int((smoothed[begin : end + 1] <= level).argmax())
            index = (begin + end) // 2
            why = (
                f"the middle of the longest stretch over which the smoothed loss falls, from "
                f"{smoothed[begin]:.4g} at rate {rates[begin]:.2e} to {smoothed[end]:.4g} at rate "
                f"{rates[end]:.2e}"
            )
        else:
            slopes = np.gradient(smoothed, np.log(rates.astype(np.float64)))
            index = int(slopes.argmin())
            why = (
                f"here the smoothed loss falls fastest, by {-slopes[index] * np.log(10):.4g} "
                f"for each factor of 10 in the rate"
            )
        if not self.diverged and self.smoothed.argmin() == len(self.smoothed) - 1:
            why += "; it was still falling at the end of the test, so a larger end may suggest more"
        return Suggestion(float(rates[index]), method, why)

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw the losses over the rates, and what :meth:`suggest` says, with Matplotlib.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw. Default: a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            With the losses, their smoothed curve, and a line at the suggestion if there is one.
        """
        import matplotlib.pyplot as plt  # only here: a training run does not pay for it

        if ax is None:
            ax = plt.figure(layout="constrained").add_subplot()
        ax.plot(self.rates, self.losses, color="0.8", label="loss")
        ax.plot(self.rates, self.smoothed, label="smoothed")
        try:
            rate = self.suggest().rate
        except ValueError:
            pass  # a curve without a suggestion is worth seeing, too
        else:
            ax.axvline(rate, color="C1", linestyle="--", label=f"suggested: {rate:.2e}")
        ax.set(xscale="log", xlabel="learning rate", ylabel="loss", title="Range test")
        # The last losses would dwarf the ones that matter.
        early = self.losses[: len(self.losses) // 10 + 1]
        low, high = self.losses.min(), max(self.smoothed.max(), early.max())
        margin = 0.05 * (high - low) or 1.0
        ax.set_ylim(low - margin, high + margin)
        ax.legend()
        return ax


def _longest_fall(losses: Float[np.ndarray, " n"]) -> tuple[int, int]:
    """Return the first and the last index of the stretch of the longest falling subsequence.

    As in fastai, the stretch has as many points as the subsequence, and ends where it ends.
    """
    ends: list[float] = []  # of the subsequences of each length, the greatest last -loss
    longest, last = 0, 0
    for i, loss in enumerate(losses):
        length = bisect.bisect_left(ends, -loss) + 1
        ends[length - 1 : length] = [-loss]
        if length > longest:
            longest, last = length, i
    return last - longest + 1, last


# What the user gave
