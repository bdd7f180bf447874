"""What a learning-rate range test found: the curve, its picture, and what it suggests."""

import bisect
import contextlib
import dataclasses
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from brainsched import checks

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclasses.dataclass(frozen=True)
class Suggestion:
    """A learning rate for the first param group, how it was found, and a sentence on why."""

    rate: float
    method: str
    reason: str


@dataclasses.dataclass(frozen=True, eq=False)
class RangeTest:
    """The curve of a learning-rate range test, up to where the loss diverged.

    Attributes
    ----------
    rates : float array of shape ``(counted,)``
        The rate of the first param group at each step.
    losses : float array of shape ``(counted,)``
        The loss of each batch before its update.
    smoothed : float array of shape ``(counted,)``
        Exponential moving average of the losses, corrected for its start.
    diverged : bool
        True if the test ended early because the loss diverged.
    """

    rates: Float[np.ndarray, " counted"]
    losses: Float[np.ndarray, " counted"]
    smoothed: Float[np.ndarray, " counted"]
    diverged: bool

    def suggest(self, method: str = "valley") -> Suggestion:
        """Suggest a learning rate to train at, or as the largest rate of a schedule.

        It is read from the smoothed curve without its first tenth and its last five steps.

        Parameters
        ----------
        method : {'valley', 'steepest'}
            ``'valley'``: the middle, on the logarithmic axis, of the longest stretch over which
            the loss falls, ignoring rises in between; its flat beginning, up to a hundredth of
            the fall, is left out. It is fastai's default, as a noisy step changes it little.
            ``'steepest'``: the rate at which the loss falls fastest.

        Raises
        ------
        TypeError, ValueError
            If ``method`` is neither of the two, or if the curve is too short or never falls.
        """
        checks.one_of("method", method, ["valley", "steepest"])
        kept = slice(len(self.rates) // 10, -5)
        rates, smoothed = self.rates[kept], self.smoothed[kept].astype(np.float64)
        if len(rates) < 5:
            raise ValueError(
                f"the loss diverged after {len(self.rates)} steps, too few to suggest a rate: "
                f"lower start, or take more steps"
            )
        if smoothed.min() >= smoothed[0]:
            raise ValueError(
                f"the smoothed loss never fell below {smoothed[0]:.4g}, its value at rate "
                f"{rates[0]:.2e}: check that the step minimises the loss it returns, or raise end"
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
                f"the smoothed loss falls fastest here, by {-slopes[index] * np.log(10):.4g} for "
                f"each factor of 10 of the rate"
            )
        if not self.diverged and self.smoothed.argmin() == len(self.smoothed) - 1:
            why += "; it was still falling at the end of the test, so a larger end may show more"
        return Suggestion(float(rates[index]), method, why)

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Plot the losses against the rates, and the suggested rate, if there is one.

        ``ax`` is where to draw with Matplotlib, by default a new figure, and is returned.
        """
        import matplotlib.pyplot as plt  # only here: a training run does not pay for it

        if ax is None:
            ax = plt.figure(layout="constrained").add_subplot()
        ax.plot(self.rates, self.losses, color="0.8", label="loss")
        ax.plot(self.rates, self.smoothed, label="smoothed")
        with contextlib.suppress(ValueError):  # a curve without a suggestion is worth seeing
            rate = self.suggest().rate
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
    ends: list[float] = []  # for each length, the smallest last -loss of a subsequence
    longest, last = 0, 0
    for i, loss in enumerate(losses):
        length = bisect.bisect_left(ends, -loss) + 1
        ends[length - 1 : length] = [-loss]
        if length > longest:
            longest, last = length, i
    return last - longest + 1, last
