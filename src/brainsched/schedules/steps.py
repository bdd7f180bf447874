"""Rates that change in steps: by a constant factor at given epochs."""

from collections.abc import Sequence
from types import ModuleType

from brainsched import checks
from brainsched.schedules.floors import FallingLR
from brainsched.schedules.stages import Powers, Search, boundaries, length, periods, reached
from brainsched.types import BaseLRs, Epochs, LRs, Rates


class StepLR(FallingLR):
    r"""A rate that is multiplied by ``gamma`` every ``step_size`` epochs.

    .. math::

        \eta_t = \eta_\text{base} \, \gamma^{\lfloor t / \text{step\_size} \rfloor}

    Parameters
    ----------
    base_lr, last_epoch : float, sequence or mapping of float; int
        The base rate of every param group, or one for each; the epoch to begin at.
    step_size : int or float
        Number of epochs between falls.
    gamma : float
        The factor of each fall, in (0, 1].
    eta_min, eta_min_ratio : float, sequence or mapping of float; float, optional
        Lower bound of the fall, at most the base rate: as a rate, or as a share of it in [0, 1].

    Examples
    --------
    >>> import brainsched
    >>> brainsched.StepLR(0.5, step_size=30, gamma=0.5).lr_at([0, 29, 30, 60]).ravel().tolist()
    [0.5, 0.5, 0.25, 0.125]

    References
    ----------
    He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition", CVPR 2016.
    """

    def __init__(
        self,
        base_lr: Rates = 1e-3,
        step_size: int | float = 30,
        gamma: float = 0.1,
        last_epoch: int = 0,
        *,
        eta_min: Rates = 0.0,
        eta_min_ratio: float | None = None,
    ) -> None:
        self.step_size = length("step_size", step_size)
        self.gamma = checks.within("gamma", gamma, "(0, 1]")
        self._powers = Powers(self.gamma)
        super().__init__(base_lr, last_epoch, eta_min, eta_min_ratio)

    def formula(self, epoch: Epochs, base_lrs: BaseLRs, xp: ModuleType) -> LRs:
        """Count the falls so far; see :meth:`LRScheduler.formula`."""
        falls, _ = periods(epoch, self.step_size, xp)
        return xp.maximum(base_lrs * self._powers(falls, xp), self._floor(base_lrs, xp))


class MultiStepLR(FallingLR):
    r"""A rate that is multiplied by ``gamma`` at each milestone.

    .. math::

        \eta_t = \eta_\text{base} \, \gamma^i, \quad
        i = |\{\, m \in \text{milestones} : m \le t \,\}|

    Parameters
    ----------
    base_lr, last_epoch : float, sequence or mapping of float; int
        The base rate of every param group, or one for each; the epoch to begin at.
    milestones : sequence of int or float
        The epochs at which the rate falls, ascending.
    gamma : float
        The factor of each fall, in (0, 1].
    eta_min, eta_min_ratio : float, sequence or mapping of float; float, optional
        Lower bound of the fall, at most the base rate: as a rate, or as a share of it in [0, 1].

    Examples
    --------
    >>> import brainsched
    >>> scheduler = brainsched.MultiStepLR(base_lr=0.5, milestones=[30, 80], gamma=0.5)
    >>> scheduler.lr_at([29, 30, 79, 80]).ravel().tolist()
    [0.5, 0.25, 0.25, 0.125]

    References
    ----------
    Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016.
    """

    def __init__(
        self,
        base_lr: Rates = 1e-3,
        milestones: Sequence[int | float] = (30, 60, 90),
        gamma: float = 0.1,
        last_epoch: int = 0,
        *,
        eta_min: Rates = 0.0,
        eta_min_ratio: float | None = None,
    ) -> None:
        self.milestones = milestones
        self.gamma = checks.within("gamma", gamma, "(0, 1]")
        self._boundaries = boundaries("milestones", milestones)
        self._falls = Search(reached(self._boundaries))
        self._powers = Powers(self.gamma)
        super().__init__(base_lr, last_epoch, eta_min, eta_min_ratio)

    def formula(self, epoch: Epochs, base_lrs: BaseLRs, xp: ModuleType) -> LRs:
        """Count the milestones so far; see :meth:`LRScheduler.formula`."""
        rates = base_lrs * self._powers(self._falls(epoch, xp), xp)
        return xp.maximum(rates, self._floor(base_lrs, xp))
