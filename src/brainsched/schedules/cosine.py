"""Rates that fall along a cosine: slowly at first, fast half way, slowly at the end."""

from types import ModuleType
from typing import Any

import numpy as np

from brainsched import checks
from brainsched.schedules.curves import Progress, between, cosine, progress
from brainsched.schedules.floors import FallingLR, GroupRates
from brainsched.schedules.stages import Powers, Search, length, periods, reached
from brainsched.types import BaseLRs, Epochs, LRs, Rates, largest_epoch


class _Shown(float):
    """A number that has a ``value``, as it has where braintools keeps it in a State."""

    def __init__(self, value: Any) -> None:
        self.value = float(value)


class CosineAnnealingLR(FallingLR):
    r"""A rate that falls to ``eta_min`` along a cosine, and stays there.

    .. math::

        \eta_t = \eta_\text{min} + (\eta_\text{base} - \eta_\text{min}) \,
        \frac{1 + \cos(\pi t / T_\text{max})}{2}, \quad t \le T_\text{max}

    From ``T_max`` on the rate stays, as in braintools; PyTorch's class goes up again.

    Parameters
    ----------
    base_lr, last_epoch : float, sequence or mapping of float; int
        The base rate of every param group, or one for each; the epoch to begin at.
    T_max : int or float
        The epoch at which the rate reaches ``eta_min``.
    eta_min, eta_min_ratio : float, sequence or mapping of float; float, optional
        Lower bound of the fall, at most the base rate: as a rate, or as a share of it in [0, 1].

    Examples
    --------
    >>> import brainsched
    >>> brainsched.CosineAnnealingLR(1.0, T_max=90).lr_at([0, 30, 45, 60, 90, 100]).ravel().tolist()
    [1.0, 0.75, 0.5, 0.25, 0.0, 0.0]

    References
    ----------
    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017.
    """

    def __init__(
        self,
        base_lr: Rates = 1e-3,
        T_max: int | float = 50,
        eta_min: Rates = 0.0,
        last_epoch: int = 0,
        *,
        eta_min_ratio: float | None = None,
    ) -> None:
        self.T_max = length("T_max", T_max)
        super().__init__(base_lr, last_epoch, eta_min, eta_min_ratio)

    def formula(self, epoch: Epochs, base_lrs: BaseLRs, xp: ModuleType) -> LRs:
        """Follow the cosine down; see :meth:`LRScheduler.formula`."""
        at = progress(epoch, self.T_max, xp)
        return between(base_lrs, self._floor(base_lrs, xp), cosine(at, xp))


class CosineAnnealingWarmRestarts(FallingLR):
    r"""A rate that falls along a cosine again and again, from the base rate.

    .. math::

        \eta_t = \eta_\text{min} + (\eta_\text{base} - \eta_\text{min}) \, \text{decay}^i \,
        \frac{1 + \cos(\pi T_\text{cur} / T_i)}{2}

    with :math:`T_\text{cur}` epochs since the last restart. Cycle :math:`i`, counted from 0, lasts
    :math:`T_i = T_0 \, T_\text{mult}^i` epochs.

    Parameters
    ----------
    base_lr, last_epoch : float, sequence or mapping of float; int
        The base rate of every param group, or one for each; the epoch to begin at.
    T_0 : int or float
        The length of the first cycle, in epochs.
    T_mult : int
        The ratio of each cycle's length to the one before.
    decay : float
        The ratio of each restart's height above ``eta_min`` to the one before, in (0, 1].
    eta_min, eta_min_ratio : float, sequence or mapping of float; float, optional
        Lower bound of the fall, at most the base rate: as a rate, or as a share of it in [0, 1].

    Examples
    --------
    >>> import brainsched
    >>> scheduler = brainsched.CosineAnnealingWarmRestarts(1.0, T_0=2, T_mult=3, decay=0.5)
    >>> scheduler.lr_at([0, 1, 2, 5, 8]).ravel().tolist()
    [1.0, 0.5, 0.5, 0.25, 0.25]

    References
    ----------
    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017; with
    peaks that decay, ``m_mul`` of ``keras.optimizers.schedules.CosineDecayRestarts``.
    """

    def __init__(
        self,
        base_lr: Rates = 1e-3,
        T_0: int | float = 10,
        T_mult: int = 1,
        eta_min: Rates = 0.0,
        last_epoch: int = 0,
        decay: float = 1.0,
        *,
        eta_min_ratio: float | None = None,
    ) -> None:
        self.T_0 = length("T_0", T_0)
        self.T_mult = checks.count("T_mult", T_mult, least=1)
        self.decay = checks.within("decay", decay, "(0, 1]")
        self._powers = Powers(self.decay)
        starts, lengths = [0.0], [self.T_0]
        while self.T_mult > 1 and starts[-1] + lengths[-1] <= largest_epoch():
            starts.append(starts[-1] + lengths[-1])
            lengths.append(lengths[-1] * self.T_mult)
        self._starts = np.asarray(starts, np.float64)
        self._restarts = Search(reached(starts))
        self._lengths = np.asarray(lengths, np.float64)
        super().__init__(base_lr, last_epoch, eta_min, eta_min_ratio)

    def formula(self, epoch: Epochs, base_lrs: BaseLRs, xp: ModuleType) -> LRs:
        """Follow the cosine of the present cycle; see :meth:`LRScheduler.formula`."""
        cycle, since, length = self._cycle(epoch, xp)
        if self.T_mult == 1:
            at = progress(since, self.T_0, xp)
        else:
            at = Progress(since / length, (length - since) / length)
        at = cosine(at, xp)
        if self.decay < 1:
            height = self._powers(cycle, xp)
            at = Progress(at.done + at.left * (1 - height), at.left * height)
        return between(base_lrs, self._floor(base_lrs, xp), at)

    @property
    def T_cur(self) -> float:
        """The number of epochs since the last restart."""
        return _Shown(self._cycle(np.asarray(self.epoch, np.float64), np)[1])

    @property
    def T_i(self) -> float:
        """The length of the present cycle, in epochs."""
        return _Shown(self._cycle(np.asarray(self.epoch, np.float64), np)[2])

    def _cycle(self, epoch: Any, xp: ModuleType) -> tuple[Any, Any, Any]:
        """Return which cycle it is, the time since its restart, and its length."""
        if self.T_mult == 1:
            return *periods(epoch, self.T_0, xp), self.T_0
        cycle = self._restarts(epoch, xp) - 1
        since = xp.maximum(epoch - xp.asarray(self._starts)[cycle], 0.0)
        return cycle, since, xp.asarray(self._lengths)[cycle]


class WarmupCosineSchedule(FallingLR):
    r"""A rate that rises in a straight line, then falls to ``eta_min`` along a cosine.

    .. math::

        \eta_t = \begin{cases}
            \eta_\text{start} + (\eta_\text{base} - \eta_\text{start}) \, t / W & t < W \\
            \eta_\text{min} + (\eta_\text{base} - \eta_\text{min}) \,
            \frac{1}{2} (1 + \cos(\pi \frac{t - W}{T - W})) & W \le t \le T \\
            \eta_\text{min} & t > T
        \end{cases}

    Parameters
    ----------
    base_lr, last_epoch : float, sequence or mapping of float; int
        The base rate of every param group, or one for each; the epoch to begin at.
    warmup_steps, total_steps : int or float
        In epochs; in updates if stepped once an update: how long the rate rises, :math:`W`, and
        when it reaches ``eta_min``, :math:`T`, at least :math:`W`.
    warmup_start_lr : float, sequence or mapping of float
        The first rate: see :class:`WarmupScheduler`.
    eta_min, eta_min_ratio : float, sequence or mapping of float; float, optional
        Lower bound of the fall, at most the base rate: as a rate, or as a share of it in [0, 1].

    Examples
    --------
    >>> import brainsched
    >>> scheduler = brainsched.WarmupCosineSchedule(base_lr=1.0, warmup_steps=4, total_steps=10)
    >>> scheduler.lr_at([0, 1, 4, 6, 7, 10]).ravel().tolist()
    [0.0, 0.25, 1.0, 0.75, 0.5, 0.0]

    References
    ----------
    Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017.
    """

    def __init__(
        self,
        base_lr: Rates = 1e-3,
        warmup_steps: int | float = 1000,
        total_steps: int | float = 10000,
        warmup_start_lr: Rates = 0.0,
        eta_min: Rates = 0.0,
        last_epoch: int = 0,
        *,
        eta_min_ratio: float | None = None,
    ) -> None:
        self.warmup_steps = length("warmup_steps", warmup_steps, or_zero=True)
        self.total_steps = length("total_steps", total_steps)
        if self.warmup_steps > self.total_steps:
            raise ValueError(
                f"warmup_steps must be at most total_steps, which is {self.total_steps}, "
                f"got {self.warmup_steps}"
            )
        self.warmup_start_lr = warmup_start_lr
        self._boundaries = [self.warmup_steps]
        self._start = GroupRates("warmup_start_lr", warmup_start_lr, base_lr)
        super().__init__(base_lr, last_epoch, eta_min, eta_min_ratio)

    def formula(self, epoch: Epochs, base_lrs: BaseLRs, xp: ModuleType) -> LRs:
        """Rise, then follow the cosine down; see :meth:`LRScheduler.formula`."""
        rise = progress(epoch, self.warmup_steps, xp)
        fall = progress(epoch - self.warmup_steps, self.total_steps - self.warmup_steps, xp)
        return xp.where(
            epoch < self.warmup_steps,
            between(self._start(base_lrs, xp), base_lrs, rise),
            between(base_lrs, self._floor(base_lrs, xp), cosine(fall, xp)),
        )
