"""A plan with another end: the rest of a schedule, stretched."""

import math
from collections.abc import Sequence
from fractions import Fraction
from types import ModuleType
from typing import Any

from brainsched.core.scheduler import LRScheduler
from brainsched.schedules.composition import Composition
from brainsched.schedules.lengths import length, quotient
from brainsched.types import Epochs, LRs


class Extension(Composition):
    r"""A schedule up to an epoch, and what is left of it stretched to a later end.

    .. math::

        \eta_t = \eta^\text{old}_{\tau(t)}, \qquad
        \tau(t) = t, \; t \le \text{at}; \qquad
        \tau(t) = \text{at} + (t - \text{at}) \,
        \frac{\text{end} - \text{at}}{\text{new\_end} - \text{at}}, \; t > \text{at}

    The rate does not jump, takes every value that it would have taken, and at ``new_end`` is what
    it was to be at ``end``; then the old schedule's time runs as it did. A ``new_end`` before
    ``end`` shortens the plan. A checkpoint of the old schedule loads in an extension of it.

    Parameters
    ----------
    scheduler : LRScheduler
        The old schedule; a composition, too.
    at : int or float
        The last epoch of the old schedule, usually the present epoch of the run.
    end : int or float
        The epoch at which the old schedule ends, after ``at``: the ``T_max`` of a cosine.
    new_end : int or float
        The epoch at which it ends instead, after ``at``.
    last_epoch : int, optional
        The epoch to begin at. Default: the present one of ``scheduler``.

    Examples
    --------
    >>> import brainsched
    >>> old = brainsched.PolynomialLR(base_lr=1.0, total_iters=4)
    >>> brainsched.Extension(old, at=2, end=4, new_end=6).lr_at(range(8)).ravel().tolist()
    [1.0, 0.75, 0.5, 0.375, 0.25, 0.125, 0.0, 0.0]
    """

    def __init__(
        self,
        scheduler: LRScheduler,
        at: int | float,
        end: int | float,
        new_end: int | float,
        last_epoch: int | None = None,
    ) -> None:
        self.scheduler = self._trunk = scheduler
        self.at = length("at", at, or_zero=True)
        self.end = length("end", end, or_zero=True)
        self.new_end = length("new_end", new_end, or_zero=True)
        for name, value in (("end", self.end), ("new_end", self.new_end)):
            if value <= self.at:
                raise ValueError(
                    f"{name} must come after at, which is {self.at}, got {value}: after the end "
                    f"of a schedule use rewarm, and then cooldown"
                )
        super().__init__({"scheduler": scheduler}, last_epoch)

    @property
    def stage_boundaries(self) -> Sequence[float]:
        """Those of the old schedule, each at the first epoch that reaches it."""
        return [self._reaches(boundary) for boundary in self.scheduler.stage_boundaries]

    def _reaches(self, boundary: float) -> float:
        if boundary <= self.at:
            return boundary
        if boundary >= self.end:
            return boundary - self.end + self.new_end
        stretch = Fraction(self.new_end - self.at) / Fraction(self.end - self.at)
        return math.ceil(self.at + Fraction(boundary - self.at) * stretch)

    def formula(self, epoch: Epochs, base_lrs: Any, xp: ModuleType) -> LRs:
        """Evaluate the old schedule at another time; see :meth:`LRScheduler.formula`."""
        left, new_left = self.end - self.at, self.new_end - self.at
        since = xp.clip(epoch - self.at, 0.0, float(new_left))
        before = xp.minimum(epoch, float(self.at))
        after = xp.maximum(epoch - self.new_end, 0.0)
        old_epoch = before + quotient(since * left, new_left) + after
        (bases,) = base_lrs
        return self.scheduler.formula(old_epoch, bases, xp)
