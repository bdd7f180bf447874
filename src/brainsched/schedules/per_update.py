"""A schedule in epochs, for an optimizer that is stepped once an update."""

import math
from collections.abc import Sequence
from fractions import Fraction
from types import ModuleType
from typing import Any

from brainsched.core.scheduler import LRScheduler
from brainsched.schedules import schedule_checks
from brainsched.schedules.composition import Composition
from brainsched.schedules.lengths import length, quotient
from brainsched.types import Epochs, LRs


class PerUpdate(Composition):
    r"""A schedule in epochs, stretched so that it can be stepped once an update.

    .. math::

        \eta_n = \eta^\text{part}_{n / s}

    after :math:`n` updates, with :math:`s` = ``steps_per_epoch``. Its own epochs are updates:
    ``last_epoch``, ``step(epoch)`` and the milestones of a :class:`SequentialLR` around it count
    them. Smooth parts change at every update, and stages at their boundary: an epoch ``b`` of the
    part begins with update ``b * steps_per_epoch``.

    Parameters
    ----------
    scheduler : LRScheduler
        The part, in epochs; a composition too. Its position is ignored.
    steps_per_epoch : float
        The number of updates in an epoch of the part: ``len(data) / batch_size``, whole or not.
    staircase : bool
        Hold the rate of the part's last whole epoch until the next begins.
    last_epoch : int
        The update to begin at.

    Examples
    --------
    >>> import brainsched
    >>> warmup = brainsched.WarmupScheduler(base_lr=1.0, warmup_epochs=2)
    >>> brainsched.PerUpdate(warmup, steps_per_epoch=4).lr_at(range(10)).ravel().tolist()
    [0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0, 1.0]
    >>> brainsched.PerUpdate(warmup, 4, staircase=True).lr_at(range(10)).ravel().tolist()
    [0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.5, 1.0, 1.0]
    """

    _parts_are_in_epochs = True

    def __init__(
        self,
        scheduler: LRScheduler,
        steps_per_epoch: int | float,
        staircase: bool = False,
        last_epoch: int = 0,
    ) -> None:
        self.scheduler = scheduler
        self.steps_per_epoch: Any = length("steps_per_epoch", steps_per_epoch)
        self._steps = Fraction(self.steps_per_epoch).limit_denominator(1_000_000)
        self.staircase = schedule_checks.flag("staircase", staircase)
        super().__init__({"scheduler": scheduler}, last_epoch)

    @property
    def stage_boundaries(self) -> Sequence[float]:
        """Those of the part, in updates."""
        boundaries = map(Fraction, self.scheduler.stage_boundaries)
        return [math.ceil(at.limit_denominator(1_000_000) * self._steps) for at in boundaries]

    def formula(self, epoch: Epochs, base_lrs: Any, xp: ModuleType) -> LRs:
        """Evaluate the part at the quotient; see :meth:`LRScheduler.formula`."""
        updates = epoch * self._steps.denominator  # exact: both are integers
        part_epoch = quotient(updates, self._steps.numerator)
        if self.staircase:
            part_epoch = xp.floor(part_epoch)
        (bases,) = base_lrs
        return self.scheduler.formula(part_epoch, bases, xp)
