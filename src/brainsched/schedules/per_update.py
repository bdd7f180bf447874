"""A schedule in epochs, for an optimizer that is stepped once an update."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

from brainsched.core.scheduler import LRScheduler
from brainsched.schedules import schedule_checks
from brainsched.schedules.composition import Composition
from brainsched.types import Epochs, LRs


class PerUpdate(Composition):
    r"""A schedule that is in epochs, stretched to be stepped once an update.

    .. math::

        \eta_n = \eta^\text{part}_{n / s}

    after :math:`n` updates, with :math:`s` = ``steps_per_epoch``. Its own epochs are updates:
    ``last_epoch``, ``step(epoch)`` and the milestones of a :class:`SequentialLR` around it count
    them. Smooth parts change at every update, and stages at their boundary: an epoch ``b`` of the
    part begins with update ``b * steps_per_epoch``.

    Parameters
    ----------
    scheduler : LRScheduler
        The part, in epochs; a composition too. Its position plays no role.
    steps_per_epoch : int
        How many updates make an epoch of the part.
    staircase : bool
        Hold the rate of the part's last whole epoch until the next begins: :math:`\lfloor n / s
        \rfloor` in the place of :math:`n / s`.
    last_epoch : int
        The update to begin at.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; the message names it.

    Notes
    -----
    The quotient is that of the count and ``steps_per_epoch`` in float64, rounded once.

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
        steps_per_epoch: int,
        staircase: bool = False,
        last_epoch: int = 0,
    ) -> None:
        self.scheduler = scheduler
        self.steps_per_epoch = schedule_checks.count("steps_per_epoch", steps_per_epoch, least=1)
        self.staircase = schedule_checks.flag("staircase", staircase)
        super().__init__({"scheduler": scheduler}, last_epoch)

    @property
    def stage_boundaries(self) -> Sequence[int]:
        """Those of the part, in updates."""
        return [boundary * self.steps_per_epoch for boundary in self.scheduler.stage_boundaries]

    def formula(self, epoch: Epochs, base_lrs: Any, xp: ModuleType) -> LRs:
        """Evaluate the part at the quotient; see :meth:`LRScheduler.formula`."""
        part_epoch = epoch / self.steps_per_epoch
        if self.staircase:
            part_epoch = xp.floor(part_epoch)
        (bases,) = base_lrs
        return self.scheduler.formula(part_epoch, bases, xp)
