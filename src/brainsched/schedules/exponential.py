"""Rates that fall, or grow, by a constant factor in a constant time."""

from types import ModuleType

from brainsched import checks
from brainsched.core.scheduler import LRScheduler
from brainsched.schedules.floors import FallingLR, Floor, GroupRates
from brainsched.schedules.stages import Powers, length, periods
from brainsched.types import BaseLRs, Epochs, LRs, Rates


class ExponentialLR(FallingLR):
    r"""A rate that is multiplied by ``gamma`` at every epoch.

    .. math::

        \eta_t = \eta_\text{base} \, \gamma^t

    Parameters
    ----------
    base_lr, last_epoch : float, sequence or mapping of float; int
        The base rate of every param group, or one for each; the epoch to begin at.
    gamma : float
        The factor of each epoch, in (0, 1]; above 1 in :class:`ExponentialDecayLR`.
    eta_min, eta_min_ratio : float, sequence or mapping of float; float, optional
        Lower bound of the fall, at most the base rate: as a rate, or as a share of it in [0, 1].

    Examples
    --------
    >>> import brainsched
    >>> brainsched.ExponentialLR(base_lr=0.5, gamma=0.5).lr_at(range(4)).ravel().tolist()
    [0.5, 0.25, 0.125, 0.0625]

    References
    ----------
    Bottou, "Stochastic Gradient Descent Tricks", Neural Networks: Tricks of the Trade, 2012.
    """

    def __init__(
        self,
        base_lr: Rates = 1e-3,
        gamma: float = 0.95,
        last_epoch: int = 0,
        *,
        eta_min: Rates = 0.0,
        eta_min_ratio: float | None = None,
    ) -> None:
        self.gamma = checks.within("gamma", gamma, "(0, 1]")
        super().__init__(base_lr, last_epoch, eta_min, eta_min_ratio)

    def formula(self, epoch: Epochs, base_lrs: BaseLRs, xp: ModuleType) -> LRs:
        """Raise to the power; see :meth:`LRScheduler.formula`."""
        return xp.maximum(base_lrs * self.gamma**epoch, self._floor(base_lrs, xp))


class ExponentialDecayLR(FallingLR):
    r"""A rate that is multiplied by ``decay_rate`` every ``decay_steps``, smoothly or in steps.

    .. math::

        \eta_t = \eta_\text{base} \, r^{s / \text{decay\_steps}},
        \quad s = \max(t - \text{transition\_begin}, 0)

    Parameters
    ----------
    base_lr, last_epoch : float, sequence or mapping of float; int
        The base rate of every param group, or one for each; the epoch to begin at.
    decay_steps : int or float
        In epochs; in updates if stepped once an update: how long a change by ``decay_rate`` takes.
    decay_rate : float
        The factor :math:`r`, above 0. Above 1 the rate grows, at most to the largest float32.
    transition_begin : int or float
        The epoch up to which the rate stays the base rate.
    staircase : bool
        Whether the exponent is rounded down, so that the rate changes in steps.
    end_value, end_value_ratio : float, sequence or mapping of float; float, optional
        The lowest rate, at most the base rate, or a share of it in [0, 1]; with a ``decay_rate``
        of 1 or more, ``end_value`` is the highest.

    Examples
    --------
    >>> import brainsched
    >>> scheduler = brainsched.ExponentialDecayLR(base_lr=0.5, decay_steps=10, decay_rate=0.25)
    >>> scheduler.lr_at([0, 5, 10]).ravel().tolist()
    [0.5, 0.25, 0.125]

    References
    ----------
    The same as ``optax.exponential_decay``, https://optax.readthedocs.io.
    """

    def __init__(
        self,
        base_lr: Rates = 1e-3,
        decay_steps: int | float = 1000,
        decay_rate: float = 0.96,
        transition_begin: int | float = 0,
        staircase: bool = False,
        end_value: Rates | None = None,
        last_epoch: int = 0,
        *,
        end_value_ratio: float | None = None,
    ) -> None:
        self.decay_steps = length("decay_steps", decay_steps)
        self.decay_rate = checks.within("decay_rate", decay_rate, "(0, inf)")
        self.transition_begin = length("transition_begin", transition_begin, or_zero=True)
        self.staircase = checks.flag("staircase", staircase)
        self.end_value, self.end_value_ratio = end_value, end_value_ratio
        grows = self.decay_rate >= 1
        floor = 0.0 if grows or end_value is None else end_value
        ceiling = end_value if grows and end_value is not None else checks.LARGEST_RATE
        self._floor = Floor("end_value", floor, end_value_ratio, base_lr)
        self._ceiling = GroupRates("end_value", ceiling, base_lr)
        self._powers = Powers(self.decay_rate)
        LRScheduler.__init__(self, base_lr, last_epoch)

    def formula(self, epoch: Epochs, base_lrs: BaseLRs, xp: ModuleType) -> LRs:
        """Raise to the power and bound; see :meth:`LRScheduler.formula`."""
        steps = xp.maximum(epoch - self.transition_begin, 0)
        if self.staircase:
            factors = self._powers(periods(steps, self.decay_steps, xp)[0], xp)
        else:
            exponents = xp.minimum(steps * (1 / self.decay_steps), self._powers.last)
            factors = self.decay_rate**exponents
        rates = xp.minimum(base_lrs * factors, self._ceiling(base_lrs, xp))
        return xp.maximum(rates, self._floor(base_lrs, xp))
