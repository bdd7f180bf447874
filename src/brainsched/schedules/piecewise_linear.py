"""Rates that go from knot to knot in straight lines."""

from collections.abc import Sequence
from types import ModuleType

import numpy as np

from brainsched.schedules import stages
from brainsched.schedules.curves import Progress, between
from brainsched.schedules.piecewise_constant import PiecewiseSchedule
from brainsched.types import Array, BaseLRs, Epochs, LRs, Rates


class PiecewiseLinearSchedule(PiecewiseSchedule):
    r"""A rate that goes in straight lines from one epoch to the next of a list.

    .. math::

        \eta_t = \eta_\text{base} \left(v_i + (v_{i+1} - v_i)
        \frac{t - b_i}{b_{i+1} - b_i}\right), \quad b_i \le t < b_{i+1}

    and constant before the first boundary and from the last one on.

    Parameters
    ----------
    base_lr, last_epoch : float, sequence or mapping of float; int
        The base rate of every param group, or one for each; the epoch to begin at.
    boundaries : sequence of int or float
        The epochs :math:`b` that the lines join, ascending: one at least.
    values : sequence of float, or of rows of float
        The multiplier :math:`v` at each of ``boundaries``; or a row for each, with a column for
        each param group.

    Examples
    --------
    >>> import brainsched
    >>> scheduler = brainsched.PiecewiseLinearSchedule(
    ...     base_lr=0.5, boundaries=[0, 4, 12], values=[0.0, 1.0, 0.0])
    >>> scheduler.lr_at([0, 1, 4, 8, 10, 12, 20]).ravel().tolist()
    [0.0, 0.125, 0.5, 0.25, 0.125, 0.0, 0.0]

    References
    ----------
    The schedule of the fastest CIFAR-10 training in DAWNBench: Page, "How to Train Your ResNet",
    2018. ``optax.piecewise_interpolate_schedule('linear', ...)``, which multiplies its factors up.
    """

    _more = 0

    def __init__(
        self,
        base_lr: Rates,
        boundaries: Sequence[int | float] | Array,
        values: Sequence[float] | Sequence[Sequence[float]] | Array,
        last_epoch: int = 0,
    ) -> None:
        self.boundaries = boundaries
        self.values = values
        self._boundaries = stages.boundaries("boundaries", boundaries)
        knots = np.asarray(self._boundaries, np.float64)
        if not len(knots):
            raise ValueError("boundaries must have at least one epoch, got an empty sequence")
        self._reached = stages.Search(knots)
        # Before the first knot and after the last one there is a line of length 0 at the knot.
        self._starts = np.concatenate([knots[:1], knots])
        self._ends = np.concatenate([knots, knots[-1:]])
        spans = self._ends - self._starts
        self._per_epoch = np.divide(1, spans, out=np.zeros_like(spans), where=spans > 0)
        super().__init__(base_lr, last_epoch)

    def formula(self, epoch: Epochs, base_lrs: BaseLRs, xp: ModuleType) -> LRs:
        """Find the line and go along it; see :meth:`LRScheduler.formula`."""
        line = self._reached(epoch, xp)
        start, end, per_epoch = (
            xp.asarray(of_each).take(line, mode="clip")
            for of_each in (self._starts, self._ends, self._per_epoch)
        )
        done = (epoch - start) * per_epoch
        at = Progress(done, xp.where(done > 0, (end - epoch) * per_epoch, 1.0))
        multipliers = xp.asarray(self._multipliers)[:, : len(base_lrs)]
        knot = line[..., 0]  # the one that the line ends at, but for the last line
        return base_lrs * between(
            multipliers.take(xp.maximum(knot - 1, 0), axis=0, mode="clip"),
            multipliers.take(knot, axis=0, mode="clip"),
            at,
        )
