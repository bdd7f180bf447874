"""Rates that rise in a straight line at first."""

from collections.abc import Sequence
from types import ModuleType

from brainsched import checks
from brainsched.core.scheduler import LRScheduler
from brainsched.schedules.curves import STRATEGIES, between, fall, progress
from brainsched.schedules.floors import FallingLR, GroupRates
from brainsched.schedules.stages import length, periods
from brainsched.types import BaseLRs, Epochs, LRs, Rates


class WarmupScheduler(LRScheduler):
    r"""A rate that rises to the base rate in a straight line, and stays there.

    .. math::

        \eta_t = \eta_\text{start} + (\eta_\text{base} - \eta_\text{start}) \frac{\min(t, W)}{W}

    Parameters
    ----------
    base_lr, last_epoch : float, sequence or mapping of float; int
        The base rate of every param group, or one for each; the epoch to begin at.
    warmup_epochs : int or float
        The epoch at which the rate reaches the base rate: :math:`W`. 0: at the first.
    warmup_start_lr : float, sequence or mapping of float
        The first rate. With 0, stepped once an epoch, the whole first epoch trains at rate 0:
        count updates, with :class:`PerUpdate`.

    Examples
    --------
    >>> import brainsched
    >>> brainsched.WarmupScheduler(0.5, warmup_epochs=4).lr_at(range(6)).ravel().tolist()
    [0.0, 0.125, 0.25, 0.375, 0.5, 0.5]

    References
    ----------
    Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017.
    """

    def __init__(
        self,
        base_lr: Rates = 1e-3,
        warmup_epochs: int | float = 5,
        warmup_start_lr: Rates = 0.0,
        last_epoch: int = 0,
    ) -> None:
        self.warmup_epochs = length("warmup_epochs", warmup_epochs, or_zero=True)
        self.warmup_start_lr = warmup_start_lr
        self._start = GroupRates("warmup_start_lr", warmup_start_lr, base_lr)
        self._boundaries = [self.warmup_epochs]
        super().__init__(base_lr, last_epoch)

    def formula(self, epoch: Epochs, base_lrs: BaseLRs, xp: ModuleType) -> LRs:
        """Rise in a straight line; see :meth:`LRScheduler.formula`."""
        rise = progress(epoch, self.warmup_epochs, xp)
        return between(self._start(base_lrs, xp), base_lrs, rise)


class WSD(FallingLR):
    r"""A rate that rises, stays and falls: warm up, stay, decay.

    It rises to the base rate in a straight line from epoch 0 to :math:`W`, stays there up to
    :math:`W + S`, and falls to ``eta_min``, which it reaches at :math:`W + S + D`. With more than
    one cycle it begins again there, as if at epoch 0, up to the end of the last cycle.

    Parameters
    ----------
    base_lr, last_epoch : float, sequence or mapping of float; int
        The base rate of every param group, or one for each; the epoch to begin at.
    warmup_steps, stay_steps, decay_steps : int or float
        In epochs; in updates if stepped once an update: how long the rate rises, stays and falls,
        :math:`W`, :math:`S` and :math:`D`. Only the last must be above 0.
    warmup_start_lr : float, sequence or mapping of float
        The first rate: see :class:`WarmupScheduler`.
    eta_min, eta_min_ratio : float, sequence or mapping of float; float, optional
        Lower bound of the fall, at most the base rate: as a rate, or as a share of it in [0, 1].
    decay_strategy, power : {'linear', 'cos', 'sqrt', 'exponential', 'polynomial'}, float
        How the rate falls: with a share :math:`x` of the decay behind it, the base rate has the
        weight :math:`1 - x`, :math:`\frac{1}{2} (1 + \cos \pi x)`, :math:`1 - \sqrt{x}` or
        :math:`(1 - x)^\text{power}`, and ``eta_min`` the rest; or, by a constant factor, the rate
        is :math:`\eta_\text{base}^{1 - x} \eta_\text{min}^x`, with ``eta_min`` above 0.
    cycles : int
        How often the rate rises, stays and falls: 1 or more.

    Examples
    --------
    >>> import brainsched
    >>> scheduler = brainsched.WSD(base_lr=1.0, warmup_steps=2, stay_steps=3, decay_steps=4)
    >>> scheduler.lr_at([0, 1, 2, 5, 6, 7, 8, 9]).ravel().tolist()
    [0.0, 0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]

    References
    ----------
    Hu et al., "MiniCPM", COLM 2024; the square root: Hägele et al., "Scaling Laws and
    Compute-Optimal Training Beyond Fixed Training Durations", NeurIPS 2024; cycles: Wen et al.,
    "Understanding Warmup-Stable-Decay Learning Rates", ICLR 2025.
    """

    def __init__(
        self,
        base_lr: Rates = 1e-3,
        warmup_steps: int | float = 1000,
        stay_steps: int | float = 8000,
        decay_steps: int | float = 1000,
        warmup_start_lr: Rates = 0.0,
        eta_min: Rates = 0.0,
        decay_strategy: str = "linear",
        last_epoch: int = 0,
        cycles: int = 1,
        *,
        power: float = 1.0,
        eta_min_ratio: float | None = None,
    ) -> None:
        self.warmup_steps = length("warmup_steps", warmup_steps, or_zero=True)
        self.stay_steps = length("stay_steps", stay_steps, or_zero=True)
        self.decay_steps = length("decay_steps", decay_steps)
        self.warmup_start_lr = warmup_start_lr
        self._start = GroupRates("warmup_start_lr", warmup_start_lr, base_lr)
        self.decay_strategy = checks.one_of("decay_strategy", decay_strategy, STRATEGIES)
        self.power = checks.within("power", power, "(0, inf)")
        self.cycles = checks.count("cycles", cycles, least=1)
        self._period = self.warmup_steps + self.stay_steps + self.decay_steps
        super().__init__(base_lr, last_epoch, eta_min, eta_min_ratio)
        if decay_strategy == "exponential":
            self._floor.require_above_zero()

    @property
    def stage_boundaries(self) -> Sequence[float]:
        """The epochs at which a rise begins or ends, and those at which a fall begins."""
        stages = (0, self.warmup_steps, self.warmup_steps + self.stay_steps)
        return [cycle * self._period + at for cycle in range(self.cycles) for at in stages][1:]

    def formula(self, epoch: Epochs, base_lrs: BaseLRs, xp: ModuleType) -> LRs:
        """Rise, stay and fall; see :meth:`LRScheduler.formula`."""
        if self.cycles > 1:
            cycle = xp.minimum(periods(epoch, self._period, xp)[0], self.cycles - 1)
            epoch = epoch - cycle * float(self._period)
        peak_ends = self.warmup_steps + self.stay_steps
        rise = progress(epoch, self.warmup_steps, xp)
        way = progress(epoch - peak_ends, self.decay_steps, xp)
        floor = self._floor(base_lrs, xp)
        return xp.where(
            epoch < self.warmup_steps,
            between(self._start(base_lrs, xp), base_lrs, rise),
            fall(base_lrs, floor, way, self.decay_strategy, self.power, xp),
        )
