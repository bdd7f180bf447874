"""The one schedule with a memory: it depends on a metric, not on the epoch alone."""

import math
from types import ModuleType
from typing import Any

import numpy as np

from brainsched import checks
from brainsched.core.base_rates import BaseRates
from brainsched.core.evaluation import advance
from brainsched.core.scheduler import LRScheduler
from brainsched.core.states import CountState, MetricState
from brainsched.schedules import schedule_checks
from brainsched.schedules.powers import Powers
from brainsched.types import Array, BaseLRs, Epochs, LRs, Rates


class ReduceLROnPlateau(LRScheduler):
    r"""A rate that falls when a metric has stopped improving.

    After :math:`n` reductions,

    .. math::

        \eta = \max(\eta_\text{base} \, \text{factor}^n, \eta_\text{min})

    The rate is reduced at the step at which the metric has not improved for more than
    ``patience`` steps. To improve is to be better than ``best`` by ``threshold * |best|``, or by
    ``threshold`` in threshold mode ``'abs'``: below it in mode ``'min'``, above it in ``'max'``.

    Parameters
    ----------
    base_lr : float or sequence of float
        The first rate, of every param group or one for each.
    mode : {'min', 'max'}
        Whether a lower or a higher metric is better.
    factor : float
        The factor of each reduction, in (0, 1).
    patience : int
        How many steps without an improvement are tolerated.
    threshold : float
        How much better is an improvement; with ``'min'`` and ``'rel'`` below 1.
    threshold_mode : {'rel', 'abs'}
        Whether ``threshold`` is a share of the best metric, or in its unit.
    cooldown : int
        For how many steps after a reduction the metric is not looked at.
    min_lr : float or sequence of float
        The rate that is not gone below, of every param group or one for each; the last entry
        counts for groups beyond them. A base rate below it stays.
    eps : float
        A reduction by less than this is not made, and none after it.
    last_epoch : int
        The epoch to begin at.

    Attributes
    ----------
    best : brainstate.State
        The best metric so far: a scalar float32, infinite at first.
    num_bad_epochs, cooldown_counter, reductions : brainstate.State
        The steps without an improvement, the steps of cooldown left, and the reductions so far:
        scalar integers.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; the message names it. TypeError for what needs the
        rate to be a function of the epoch: ``lr_at``, ``plot``, ``as_optax``, a composition.

    Notes
    -----
    Metrics are compared in float32, on the host and compiled alike. NaN is no improvement.
    During a cooldown ``best`` stays as it is, as in braintools; PyTorch's follows the metric.
    A share of ``best`` is one of its absolute value here: ``best * (1 - threshold)``, as elsewhere,
    lies above a negative ``best``, so that standing still would count (PyTorch #47513).

    Examples
    --------
    >>> import brainsched
    >>> scheduler = brainsched.ReduceLROnPlateau(base_lr=0.5, factor=0.5, patience=1)
    >>> for loss in [3.0, 2.0, 2.0, 2.0]:
    ...     scheduler.step(loss)
    ...     print(scheduler.get_last_lr()[0])
    0.5
    0.5
    0.5
    0.25

    References
    ----------
    The class of this name in PyTorch, ``torch.optim.lr_scheduler.ReduceLROnPlateau``.
    """

    _memory = ("best", "num_bad_epochs", "cooldown_counter", "reductions")
    _position_name = "reductions"

    def __init__(
        self,
        base_lr: Rates = 1e-3,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: Rates = 0.0,
        eps: float = 1e-8,
        last_epoch: int = 0,
    ) -> None:
        self.mode = schedule_checks.one_of("mode", mode, ["min", "max"])
        self.factor = schedule_checks.within("factor", factor, "(0, 1)")
        self.patience = schedule_checks.count("patience", patience, least=0)
        self.threshold = checks.number("threshold", threshold)
        self.threshold_mode = schedule_checks.one_of(
            "threshold_mode", threshold_mode, ["rel", "abs"]
        )
        if mode == "min" and threshold_mode == "rel" and self.threshold >= 1:
            raise ValueError(f"threshold must be below 1 in modes 'min' and 'rel', got {threshold}")
        self.cooldown = schedule_checks.count("cooldown", cooldown, least=0)
        self.min_lr = min_lr
        self.eps = checks.number("eps", eps)
        self._min_lrs = BaseRates(tuple(checks.base_rates("min_lr", min_lr, base_lr)))
        self._powers = Powers(self.factor)
        self.best = MetricState(math.inf if mode == "min" else -math.inf)
        self.num_bad_epochs = CountState(0)
        self.cooldown_counter = CountState(0)
        self.reductions = CountState(0)
        super().__init__(base_lr, last_epoch)

    def formula(self, epoch: Epochs, base_lrs: BaseLRs, xp: ModuleType) -> LRs:
        """Reduce so many times; ``epoch`` counts reductions here, not epochs."""
        floors = self._min_lrs.arrays(
            len(base_lrs), lambda rates: xp.stack([xp.asarray(rate, np.float64) for rate in rates])
        )
        # A rate that is lower than this is not reduced any more, by the two limits.
        lowest = xp.maximum(self.eps / (1 - self.factor), floors + self.eps)
        share = lowest / xp.where(base_lrs > 0, base_lrs, np.finfo(np.float64).tiny)
        estimate = xp.log(xp.maximum(share, np.finfo(np.float64).tiny)) / math.log(self.factor)
        estimate = xp.minimum(xp.maximum(xp.floor(estimate), 1), self._powers.last).astype(int)
        reducible = [
            base_lrs * self._powers(estimate + offset, xp) >= lowest for offset in (-1, 0, 1)
        ]
        # The logarithm may be off by one; the powers themselves decide.
        times = xp.minimum(
            epoch.astype(int), estimate - 1 + sum(found.astype(int) for found in reducible)
        )
        reduced = xp.maximum(base_lrs * self._powers(times, xp), floors)
        return xp.where(times > 0, reduced, base_lrs)

    def step(self, metric: Any, epoch: Any = None) -> None:  # type: ignore[override]
        """Take note of the metric, and go to the next epoch, or to ``epoch``.

        Parameters
        ----------
        metric : float or scalar array
            What is watched, such as the loss on held-out data; it may be traced.
        epoch : int or integer scalar array, optional
            The epoch to go to.

        Raises
        ------
        TypeError, ValueError
            If ``metric`` is not one real number, or ``epoch`` not as described in
            :meth:`LRScheduler.step`.
        brainstate.TraceContextError
            If called under a plain JAX transformation, which does not track States.
        """
        if self._replaced_by is not None:
            self._warn_that_it_was_replaced()
        metric = checks.metric("metric", metric)
        now: Any = self.last_epoch.value if epoch is None else checks.epoch("epoch", epoch)
        memory = [getattr(self, name).value for name in self._memory]
        move = self._next if epoch is None else self._jump
        (now, *memory), rates = self._evaluation(move, metric, now, *memory)
        self._apply(rates)
        self.last_epoch.value = now
        for name, value in zip(self._memory, memory, strict=True):
            getattr(self, name).value = value

    def _next(self, xp: ModuleType, metric: Array, now: Array, *memory: Array) -> tuple[Array, ...]:
        return (*advance(xp, now), *self._remember(xp, metric, *memory))

    def _jump(self, xp: ModuleType, metric: Array, now: Array, *memory: Array) -> tuple[Array, ...]:
        return (now, *self._remember(xp, metric, *memory))

    def _remember(self, xp: ModuleType, metric: Array, *memory: Array) -> list[Array]:
        """Return the memory after ``metric``."""
        best, bad, cooldown, reductions = memory
        cooling = cooldown > 0
        better = self._is_better(metric, best, xp)
        bad = xp.where(cooling, bad, xp.where(better, 0, bad + 1))
        best = xp.where(better & ~cooling, metric, best)
        reduce = ~cooling & (bad > self.patience)
        return [
            best,
            xp.where(reduce, 0, bad),
            xp.where(reduce, self.cooldown, xp.maximum(cooldown - 1, 0)),
            xp.where(reduce, reductions + 1, reductions),
        ]

    def _is_better(self, metric: Array, best: Array, xp: ModuleType) -> Array:
        margin = self.threshold
        if self.threshold_mode == "rel":  # of an infinite one, which there is at first, nothing
            margin = margin * xp.where(xp.isfinite(best), xp.abs(best), 0)
        return metric < best - margin if self.mode == "min" else metric > best + margin

    def _require_pure(self, what: str, cure: str = "") -> None:
        raise TypeError(
            f"{what} needs a rate that is a function of the epoch, and that of ReduceLROnPlateau "
            f"depends on the metrics of the run{cure}"
        )
