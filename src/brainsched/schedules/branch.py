"""A plan that leaves another one: to cool a run down, or to warm it up again."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax
import numpy as np

from brainsched import checks
from brainsched.core.scheduler import LRScheduler
from brainsched.schedules import schedule_checks
from brainsched.schedules.composition import Composition
from brainsched.schedules.curves import between, progress
from brainsched.schedules.warmup import DECAYS
from brainsched.types import Epochs, LRs, Rate, largest_epoch


class Branch(Composition):
    r"""A schedule up to an epoch, and from its rate there on the way to another one.

    .. math::

        \eta_t = \eta^\text{old}_t, \quad t \le \text{at}; \qquad
        \eta_t = (1 - f(x)) \, \eta^\text{old}_\text{at} + f(x) \, \eta_\text{end}, \quad
        x = \min\left(1, \frac{t - \text{at}}{\text{length}}\right)

    :func:`cooldown` and :func:`rewarm` are the two that are common. A checkpoint of the old
    schedule loads in a branch of it.

    Parameters
    ----------
    scheduler : LRScheduler
        The old schedule; a composition, too. Its position plays no role.
    at : int
        The last epoch of the old schedule.
    length : int
        How many epochs the way takes, at least 1.
    end_lr : float, optional
        The rate at ``at + length`` and from there on, of every param group. Default: each group's
        base rate.
    strategy : {'linear', 'cos', 'sqrt'}
        The way: :math:`f(x)` is :math:`x`, :math:`\frac{1}{2} (1 - \cos \pi x)` or
        :math:`\sqrt{x}`.
    last_epoch : int
        The epoch to begin at.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; the message names it.

    Examples
    --------
    >>> import brainsched
    >>> old = brainsched.WarmupScheduler(base_lr=1.0, warmup_epochs=2)
    >>> scheduler = brainsched.Branch(old, at=3, length=4, end_lr=0.5)
    >>> scheduler.lr_at(range(9)).ravel().tolist()
    [0.0, 0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.5]
    """

    def __init__(
        self,
        scheduler: LRScheduler,
        at: int,
        length: int,
        end_lr: Rate | None = None,
        strategy: str = "linear",
        last_epoch: int = 0,
    ) -> None:
        self.scheduler = self._trunk = scheduler
        self.at = schedule_checks.count("at", at, least=0)
        self.length = schedule_checks.count("length", length, least=1)
        self.end_lr = _end_lr("end_lr", end_lr)
        self.strategy = _strategy("strategy", strategy)
        super().__init__({"scheduler": scheduler}, last_epoch)

    @property
    def stage_boundaries(self) -> Sequence[int]:
        """Those of the old schedule that come before, and where the way begins and ends."""
        old = [boundary for boundary in self.scheduler.stage_boundaries if boundary < self.at]
        return [*old, self.at, self.at + self.length]

    def formula(self, epoch: Epochs, base_lrs: Any, xp: ModuleType) -> LRs:
        """Leave the old schedule, whose time stands still; see :meth:`LRScheduler.formula`."""
        (bases,) = base_lrs
        old = self.scheduler.formula(xp.minimum(epoch, float(self.at)), bases, xp)
        end = jax.tree.leaves(bases)[0] if self.end_lr is None else self.end_lr
        way = progress(epoch - self.at, self.length, xp)
        return between(old, end, DECAYS[self.strategy](way, xp))


def cooldown(
    scheduler: LRScheduler,
    at: int,
    length: int,
    eta_min: Rate = 0.0,
    decay_strategy: str = "linear",
    last_epoch: int = 0,
) -> Branch:
    """Return the plan that follows ``scheduler`` up to an epoch, and falls from there.

    One long run at a constant rate, as of :class:`WSD`, gives a finished model at any length: a
    cooldown branches off wherever one is wanted, and the long run goes on.

    Parameters
    ----------
    scheduler : LRScheduler
        The old schedule.
    at : int
        The epoch from whose rate the plan falls.
    length : int
        How many epochs the fall takes, at least 1.
    eta_min : float
        The last rate, of every param group.
    decay_strategy : {'linear', 'cos', 'sqrt'}
        How the rate falls, as in :class:`WSD`.
    last_epoch : int
        The epoch to begin at.

    Returns
    -------
    Branch
        A schedule like any other.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or the rate would rise; the message names it.

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
    eta_min = checks.rate("eta_min", eta_min)
    decay_strategy = _strategy("decay_strategy", decay_strategy)
    branch = Branch(scheduler, at, length, eta_min, decay_strategy, last_epoch)
    return _one_way(branch, "eta_min", "at most")


def rewarm(
    scheduler: LRScheduler,
    at: int,
    length: int,
    peak_lr: Rate | None = None,
    last_epoch: int = 0,
) -> Branch:
    """Return the plan that follows ``scheduler`` up to an epoch, and rises again from there.

    The rise is a straight line from the rate that the run has, so that nothing jumps, to
    ``peak_lr``, where it stays. To decay again, as continual pre-training does, take the
    :func:`cooldown` of the result.

    Parameters
    ----------
    scheduler : LRScheduler
        The old schedule.
    at : int
        The epoch from whose rate the plan rises.
    length : int
        How many epochs the rise takes, at least 1.
    peak_lr : float, optional
        The rate that it rises to, of every param group. Default: each group's base rate.
    last_epoch : int
        The epoch to begin at.

    Returns
    -------
    Branch
        A schedule like any other.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or the rate would fall; the message names it.

    Examples
    --------
    >>> import brainsched
    >>> old = brainsched.PolynomialLR(base_lr=1.0, total_iters=4)
    >>> again = brainsched.rewarm(old, at=3, length=3)
    >>> again.lr_at(range(8)).ravel().tolist()
    [1.0, 0.75, 0.5, 0.25, 0.5, 0.75, 1.0, 1.0]
    >>> brainsched.cooldown(again, at=6, length=4).lr_at(range(6, 11)).ravel().tolist()
    [1.0, 0.75, 0.5, 0.25, 0.0]

    References
    ----------
    Ibrahim et al., "Simple and Scalable Strategies to Continually Pre-train Large Language
    Models", TMLR 2024.
    """
    peak_lr = _end_lr("peak_lr", peak_lr)
    branch = Branch(scheduler, at, length, peak_lr, last_epoch=last_epoch)
    return _one_way(branch, "peak_lr", "at least")


# The checks of a way, under the name that its argument has where the user gives it.


def _one_way(branch: Branch, name: str, bound: str) -> Branch:
    """Return ``branch`` if it falls, or rises, in every param group, as its function says."""
    ends = branch.lr_at([branch.at, min(branch.at + branch.length, largest_epoch())])
    if isinstance(ends, np.ndarray):  # else the rates are on a device, or traced
        for group, (rate, end) in enumerate(ends.T.tolist()):
            if end > rate if bound == "at most" else end < rate:
                raise ValueError(
                    f"{name} must be {bound} the rate at epoch {branch.at}, which is {rate:.6g} "
                    f"in param group {group}, got {end:.6g}: a cooldown falls and rewarm rises; "
                    f"Branch takes any rate"
                )
    return branch


def _end_lr(name: str, value: Any) -> Rate | None:
    return None if value is None else checks.rate(name, value)


def _strategy(name: str, value: Any) -> str:
    return schedule_checks.one_of(name, value, list(DECAYS))
