"""Plans that leave another one: to cool a run down, to warm it up again, to end it elsewhere."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax
import numpy as np

from brainsched import checks
from brainsched.core.scheduler import LRScheduler
from brainsched.schedules import stages
from brainsched.schedules.composition import Composition
from brainsched.schedules.curves import STRATEGIES, fall, progress
from brainsched.schedules.floors import Floor
from brainsched.types import Epochs, LRs, Rates, largest_epoch


class Branch(Composition):
    r"""A schedule up to an epoch, then a transition from its rate there to another rate.

    .. math::

        \eta_t = \eta^\text{old}_t, \quad t \le \text{at}; \qquad
        \eta_t = (1 - f(x)) \, \eta^\text{old}_\text{at} + f(x) \, \eta_\text{end}, \quad
        x = \min\left(1, \frac{t - \text{at}}{\text{length}}\right)

    :func:`cooldown` and :func:`rewarm` are the common cases. A checkpoint of the old
    schedule loads in a branch of it.

    Parameters
    ----------
    scheduler : LRScheduler
        The old schedule; a composition, too.
    at : int or float
        The last epoch of the old schedule.
    length : int or float
        The length of the transition, in epochs.
    end_lr, end_lr_ratio : float, sequence or mapping of float; float, optional
        The last rate: as a rate, or as a share of the base rate in [0, 1]. Default: the base rate.
    strategy, power : {'linear', 'cos', 'sqrt', 'exponential', 'polynomial'}, float
        As ``decay_strategy`` of :class:`WSD`, where :math:`1 - f(x)` is the base rate's weight.
    last_epoch : int, optional
        The epoch to begin at. Default: the present one of ``scheduler``.

    Examples
    --------
    >>> import brainsched
    >>> old = brainsched.WarmupScheduler(base_lr=1.0, warmup_epochs=2)
    >>> brainsched.Branch(old, at=3, length=4, end_lr=0.5).lr_at(range(9)).ravel().tolist()
    [0.0, 0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.5]
    """

    def __init__(
        self,
        scheduler: LRScheduler,
        at: int | float,
        length: int | float,
        end_lr: Rates | None = None,
        strategy: str = "linear",
        last_epoch: int | None = None,
        *,
        power: float = 1.0,
        end_lr_ratio: float | None = None,
    ) -> None:
        self.scheduler = self._trunk = scheduler
        self.at = stages.length("at", at, or_zero=True)
        self.length = stages.length("length", length)
        self.end_lr, self.end_lr_ratio = end_lr, end_lr_ratio
        self._end = _end("end_lr", end_lr, end_lr_ratio, scheduler, strategy)
        self.strategy = checks.one_of("strategy", strategy, STRATEGIES)
        self.power = checks.within("power", power, "(0, inf)")
        super().__init__({"scheduler": scheduler}, last_epoch)

    @property
    def stage_boundaries(self) -> Sequence[float]:
        """Those of the old schedule that come before, and the ends of the transition."""
        old = [boundary for boundary in self.scheduler.stage_boundaries if boundary < self.at]
        return [*old, self.at, self.at + self.length]

    def formula(self, epoch: Epochs, base_lrs: Any, xp: ModuleType) -> LRs:
        """Leave the old schedule, whose time stands still; see :meth:`LRScheduler.formula`."""
        (bases,) = base_lrs
        old = self.scheduler.formula(xp.minimum(epoch, float(self.at)), bases, xp)
        end = self._end(jax.tree.leaves(bases)[0], xp)
        way = progress(epoch - self.at, self.length, xp)
        return fall(old, end, way, self.strategy, self.power, xp)


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
    end, new_end : int or float
        The epoch at which the old schedule ends, such as the ``T_max`` of a cosine, and the one at
        which it ends instead: both after ``at``.
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
        self.at = stages.length("at", at, or_zero=True)
        self.end = stages.length("end", end, or_zero=True)
        self.new_end = stages.length("new_end", new_end, or_zero=True)
        for name, value in (("end", self.end), ("new_end", self.new_end)):
            if value <= self.at:
                raise ValueError(
                    f"{name} must come after at, which is {self.at}, got {value}: after the end "
                    f"of a schedule use rewarm, and then cooldown"
                )
        super().__init__({"scheduler": scheduler}, last_epoch)

    @property
    def stage_boundaries(self) -> Sequence[float]:
        """Those of the old schedule, at their new times."""
        last = largest_epoch()
        old_times = [0, self.at, self.end, self.end + last]
        new_times = [0, self.at, self.new_end, self.new_end + last]
        return list(np.interp(self.scheduler.stage_boundaries, old_times, new_times))

    def formula(self, epoch: Epochs, base_lrs: Any, xp: ModuleType) -> LRs:
        """Evaluate the old schedule at another time; see :meth:`LRScheduler.formula`."""
        left, new_left = self.end - self.at, self.new_end - self.at
        since = xp.clip(epoch - self.at, 0.0, float(new_left))
        before = xp.minimum(epoch, float(self.at))
        after = xp.maximum(epoch - self.new_end, 0.0)
        old_epoch = before + stages.quotient(since * left, new_left) + after
        (bases,) = base_lrs
        return self.scheduler.formula(old_epoch, bases, xp)


def cooldown(
    scheduler: LRScheduler,
    at: int | float,
    length: int | float,
    eta_min: Rates = 0.0,
    decay_strategy: str = "linear",
    last_epoch: int | None = None,
    *,
    power: float = 1.0,
    eta_min_ratio: float | None = None,
) -> Branch:
    """Return the plan that follows ``scheduler`` up to an epoch, and falls from there.

    A long run at a constant rate gives a finished model at any length: a cooldown branches off
    wherever one is wanted, and the long run goes on.

    Parameters
    ----------
    scheduler, at, length, last_epoch
        As in :class:`Branch`.
    eta_min, decay_strategy, power, eta_min_ratio
        The last rate and how the rate falls, as in :class:`WSD`.

    Examples
    --------
    >>> import brainsched
    >>> long_run = brainsched.WSD(1.0, warmup_steps=2, stay_steps=1000, decay_steps=100)
    >>> brainsched.cooldown(long_run, at=5, length=4).lr_at(range(10)).ravel().tolist()
    [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]

    References
    ----------
    Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations",
    NeurIPS 2024.
    """
    checks.one_of("decay_strategy", decay_strategy, STRATEGIES)
    _end("eta_min", eta_min, eta_min_ratio, scheduler, decay_strategy)
    options: dict[str, Any] = {"power": power, "end_lr_ratio": eta_min_ratio}
    return Branch(scheduler, at, length, eta_min, decay_strategy, last_epoch, **options)


def rewarm(
    scheduler: LRScheduler,
    at: int | float,
    length: int | float,
    peak_lr: Rates | None = None,
    last_epoch: int | None = None,
) -> Branch:
    """Return the plan that follows ``scheduler`` up to an epoch, and rises again from there.

    The rise is a straight line from the rate that the run has to ``peak_lr``, where it stays. To
    decay again, as continual pre-training does, take the :func:`cooldown` of the result.

    Parameters
    ----------
    scheduler, at, length, last_epoch
        As in :class:`Branch`.
    peak_lr : float, sequence or mapping of float, optional
        The rate that it rises to. Default: the base rate.

    Examples
    --------
    >>> import brainsched
    >>> old = brainsched.PolynomialLR(base_lr=1.0, total_iters=4)
    >>> brainsched.rewarm(old, at=3, length=3).lr_at(range(8)).ravel().tolist()
    [1.0, 0.75, 0.5, 0.25, 0.5, 0.75, 1.0, 1.0]

    References
    ----------
    Ibrahim et al., "Simple and Scalable Strategies to Continually Pre-train Large Language
    Models", TMLR 2024.
    """
    _end("peak_lr", peak_lr, None, scheduler, "linear")
    return Branch(scheduler, at, length, peak_lr, last_epoch=last_epoch)


def _end(name: str, value: Any, ratio: Any, scheduler: LRScheduler, strategy: str) -> Floor:
    """Return the rates at the end of a transition, checked under the name of their argument."""
    names = dict.fromkeys(getattr(scheduler, "group_names", ()))
    if value is None:
        value, ratio = 0.0, 1.0 if ratio is None else ratio
    end = Floor(name, value, ratio, names)
    if strategy == "exponential":
        end.require_above_zero()
    return end
