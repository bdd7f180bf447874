"""Rates that fall with the inverse of time, or of its square root."""

from types import ModuleType

from brainsched import checks
from brainsched.schedules.curves import between, progress
from brainsched.schedules.floors import FallingLR, GroupRates
from brainsched.schedules.stages import length, periods
from brainsched.types import BaseLRs, Epochs, LRs, Rates


class InverseSqrtLR(FallingLR):
    r"""A rate that rises in a straight line, then falls with the inverse square root of time.

    .. math::

        \eta_t = \begin{cases}
            \eta_\text{start} + (\eta_\text{base} - \eta_\text{start}) \, t / W & t < W \\
            \eta_\text{base} \sqrt{\tau / (t - W + \tau)} & \text{otherwise}
        \end{cases}

    With :math:`\tau = W`, the default, that is the Transformer's schedule.

    Parameters
    ----------
    base_lr, last_epoch : float, sequence or mapping of float; int
        The base rate of every param group, or one for each; the epoch to begin at.
    warmup_steps : int or float
        In epochs; in updates if stepped once an update: how long the rate rises, :math:`W`.
    timescale : int or float, optional
        How long after :math:`W` the rate is :math:`1 / \sqrt{2}` of its highest: :math:`\tau`.
        Default: ``warmup_steps``, or 10,000 without a warm-up.
    warmup_start_lr : float, sequence or mapping of float
        The first rate: see :class:`WarmupScheduler`.
    eta_min, eta_min_ratio : float, sequence or mapping of float; float, optional
        Lower bound of the fall, at most the base rate: as a rate, or as a share of it in [0, 1].

    Examples
    --------
    >>> import brainsched
    >>> brainsched.InverseSqrtLR(1.0, warmup_steps=4).lr_at([0, 1, 4, 16, 64]).ravel().tolist()
    [0.0, 0.25, 1.0, 0.5, 0.25]

    References
    ----------
    Vaswani et al., "Attention Is All You Need", NeurIPS 2017.
    """

    def __init__(
        self,
        base_lr: Rates = 1e-3,
        warmup_steps: int | float = 1000,
        timescale: int | float | None = None,
        warmup_start_lr: Rates = 0.0,
        last_epoch: int = 0,
        *,
        eta_min: Rates = 0.0,
        eta_min_ratio: float | None = None,
    ) -> None:
        self.warmup_steps = length("warmup_steps", warmup_steps, or_zero=True)
        default = self.warmup_steps or 10_000
        self.timescale = length("timescale", default if timescale is None else timescale)
        self.warmup_start_lr = warmup_start_lr
        self._boundaries = [self.warmup_steps]
        self._start = GroupRates("warmup_start_lr", warmup_start_lr, base_lr)
        super().__init__(base_lr, last_epoch, eta_min, eta_min_ratio)

    def formula(self, epoch: Epochs, base_lrs: BaseLRs, xp: ModuleType) -> LRs:
        """Rise, then divide by the square root; see :meth:`LRScheduler.formula`."""
        rise = progress(epoch, self.warmup_steps, xp)
        since = xp.maximum(epoch - self.warmup_steps, 0.0)
        fall = base_lrs * xp.sqrt(self.timescale / (since + self.timescale))
        return xp.where(
            epoch < self.warmup_steps,
            between(self._start(base_lrs, xp), base_lrs, rise),
            xp.maximum(fall, self._floor(base_lrs, xp)),
        )


class InverseTimeDecayLR(FallingLR):
    r"""A rate that is divided by a number that grows in a straight line, or in steps.

    .. math::

        \eta_t = \frac{\eta_\text{base}}{1 + r \, t / \text{decay\_steps}}

    Parameters
    ----------
    base_lr, last_epoch : float, sequence or mapping of float; int
        The base rate of every param group, or one for each; the epoch to begin at.
    decay_steps : int or float
        In epochs; in updates if stepped once an update: how long a growth by ``decay_rate`` takes.
    decay_rate : float
        What the divisor grows by: :math:`r`, 0 or more.
    staircase : bool
        Whether :math:`t / \text{decay\_steps}` is rounded down, so that the rate changes in steps.
    eta_min, eta_min_ratio : float, sequence or mapping of float; float, optional
        Lower bound of the fall, at most the base rate: as a rate, or as a share of it in [0, 1].

    Examples
    --------
    >>> import brainsched
    >>> brainsched.InverseTimeDecayLR(1.0, decay_steps=10).lr_at([0, 10, 30, 70]).ravel().tolist()
    [1.0, 0.5, 0.25, 0.125]

    References
    ----------
    The class of this name in Keras, ``keras.optimizers.schedules.InverseTimeDecay``; Robbins and
    Monro, "A Stochastic Approximation Method", Annals of Mathematical Statistics 1951.
    """

    def __init__(
        self,
        base_lr: Rates = 1e-3,
        decay_steps: int | float = 1000,
        decay_rate: float = 1.0,
        staircase: bool = False,
        last_epoch: int = 0,
        *,
        eta_min: Rates = 0.0,
        eta_min_ratio: float | None = None,
    ) -> None:
        self.decay_steps = length("decay_steps", decay_steps)
        self.decay_rate = checks.within("decay_rate", decay_rate, "[0, inf)")
        self.staircase = checks.flag("staircase", staircase)
        super().__init__(base_lr, last_epoch, eta_min, eta_min_ratio)

    def formula(self, epoch: Epochs, base_lrs: BaseLRs, xp: ModuleType) -> LRs:
        """Divide by the divisor of the epoch; see :meth:`LRScheduler.formula`."""
        if self.staircase:
            times, _ = periods(epoch, self.decay_steps, xp)
        else:
            times = epoch * (1 / self.decay_steps)
        rates = base_lrs / (1 + self.decay_rate * times)
        return xp.maximum(rates, self._floor(base_lrs, xp))
