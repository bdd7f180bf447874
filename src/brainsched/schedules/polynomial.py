"""Rates that follow a power of the time that is left, a straight line, or one step."""

from types import ModuleType

from brainsched import checks
from brainsched.core.scheduler import LRScheduler
from brainsched.schedules.curves import between, polynomial, progress
from brainsched.schedules.floors import FallingLR
from brainsched.schedules.stages import length, reached
from brainsched.types import BaseLRs, Epochs, LRs, Rates


class PolynomialLR(FallingLR):
    r"""A rate that falls to ``eta_min`` like a power of the time that is left.

    .. math::

        \eta_t = \eta_\text{min} + (\eta_\text{base} - \eta_\text{min})
        \left(1 - \frac{\min(t, T)}{T}\right)^p

    Parameters
    ----------
    base_lr, last_epoch : float, sequence or mapping of float; int
        The base rate of every param group, or one for each; the epoch to begin at.
    total_iters : int or float
        The epoch from which the rate is ``eta_min``: :math:`T`.
    power : float
        The power :math:`p`, above 0: 1 for a straight line.
    eta_min, eta_min_ratio : float, sequence or mapping of float; float, optional
        Lower bound of the fall, at most the base rate: as a rate, or as a share of it in [0, 1].

    Examples
    --------
    >>> import brainsched
    >>> scheduler = brainsched.PolynomialLR(base_lr=1.0, total_iters=8, power=2.0)
    >>> scheduler.lr_at([0, 2, 4, 6, 8, 9]).ravel().tolist()
    [1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]

    References
    ----------
    Chen et al., "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous
    Convolution, and Fully Connected CRFs", IEEE TPAMI 2017.
    """

    def __init__(
        self,
        base_lr: Rates = 1e-3,
        total_iters: int | float = 5,
        power: float = 1.0,
        last_epoch: int = 0,
        *,
        eta_min: Rates = 0.0,
        eta_min_ratio: float | None = None,
    ) -> None:
        self.total_iters = length("total_iters", total_iters)
        self.power = checks.within("power", power, "(0, inf)")
        super().__init__(base_lr, last_epoch, eta_min, eta_min_ratio)

    def formula(self, epoch: Epochs, base_lrs: BaseLRs, xp: ModuleType) -> LRs:
        """Raise the share that is left to the power; see :meth:`LRScheduler.formula`."""
        at = polynomial(progress(epoch, self.total_iters, xp), self.power)
        return between(base_lrs, self._floor(base_lrs, xp), at)


class LinearLR(LRScheduler):
    r"""A rate whose multiplier goes from one factor to another in a straight line.

    .. math::

        \eta_t = \eta_\text{base} \left(s + (e - s) \frac{\min(t, T)}{T}\right)

    Parameters
    ----------
    base_lr, last_epoch : float, sequence or mapping of float; int
        The base rate of every param group, or one for each; the epoch to begin at.
    start_factor, end_factor : float
        The first multiplier :math:`s`, and the last :math:`e`, in [0, 1].
    total_iters : int or float
        The epoch from which the multiplier is ``end_factor``: :math:`T`. 0: from the first.

    Examples
    --------
    >>> import brainsched
    >>> scheduler = brainsched.LinearLR(base_lr=0.5, start_factor=0.25, total_iters=3)
    >>> scheduler.lr_at([0, 1, 2, 3, 4]).ravel().tolist()
    [0.125, 0.25, 0.375, 0.5, 0.5]

    References
    ----------
    Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017.
    """

    def __init__(
        self,
        base_lr: Rates = 1e-3,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int | float = 5,
        last_epoch: int = 0,
    ) -> None:
        self.start_factor = checks.within("start_factor", start_factor, "[0, 1]")
        self.end_factor = checks.within("end_factor", end_factor, "[0, 1]")
        self.total_iters = length("total_iters", total_iters, or_zero=True)
        super().__init__(base_lr, last_epoch)

    def formula(self, epoch: Epochs, base_lrs: BaseLRs, xp: ModuleType) -> LRs:
        """Go from factor to factor; see :meth:`LRScheduler.formula`."""
        at = progress(epoch, self.total_iters, xp)
        return base_lrs * between(self.start_factor, self.end_factor, at)


class ConstantLR(LRScheduler):
    r"""A rate that is multiplied by ``factor`` at first, and then is the base rate.

    .. math::

        \eta_t = \begin{cases}
            \eta_\text{base} \cdot \text{factor} & t < \text{total\_iters} \\
            \eta_\text{base} & \text{otherwise}
        \end{cases}

    Parameters
    ----------
    base_lr, last_epoch : float, sequence or mapping of float; int
        The base rate of every param group, or one for each; the epoch to begin at.
    factor, total_iters : float, int or float
        The first multiplier, in [0, 1], and the epoch from which it is 1.

    Examples
    --------
    >>> import brainsched
    >>> brainsched.ConstantLR(0.5, factor=0.5, total_iters=2).lr_at(range(4)).ravel().tolist()
    [0.25, 0.25, 0.5, 0.5]

    References
    ----------
    The class of this name in PyTorch, ``torch.optim.lr_scheduler.ConstantLR``.
    """

    def __init__(
        self,
        base_lr: Rates = 1e-3,
        factor: float = 1.0 / 3,
        total_iters: int | float = 5,
        last_epoch: int = 0,
    ) -> None:
        self.factor = checks.within("factor", factor, "[0, 1]")
        self.total_iters = length("total_iters", total_iters, or_zero=True)
        self._end = float(reached(self.total_iters))
        super().__init__(base_lr, last_epoch)

    def formula(self, epoch: Epochs, base_lrs: BaseLRs, xp: ModuleType) -> LRs:
        """Choose the multiplier; see :meth:`LRScheduler.formula`."""
        return base_lrs * xp.where(epoch < self._end, self.factor, 1.0)
