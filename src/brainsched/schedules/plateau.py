"""The one schedule with a memory: it depends on a metric, not on the epoch alone."""

import math
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from brainsched import checks
from brainsched.core import arguments
from brainsched.core.evaluation import Bases, Evaluation, Move, advance, stay
from brainsched.core.scheduler import LRScheduler
from brainsched.core.states import CountState, MetricState
from brainsched.schedules.composition import require_part
from brainsched.schedules.floors import FallingLR, Floor
from brainsched.schedules.stages import Powers
from brainsched.types import Array, BaseLRs, Epochs, Rates, epoch_dtype

_LEFT_OUT: Any = object()


class _OfEpochAndReductions(Evaluation):
    """Rates at an epoch and a number of reductions, the last two scalars; none calculated ahead."""

    def __call__(self, move: Move, *position: Array) -> tuple[tuple[Array, ...], list[Array]]:
        if not self.on_host or any(type(scalar) is not np.ndarray for scalar in position):
            return super().__call__(move, *position)
        position = move(np, *position)
        rates = self._rounded(position[-2:], np)[:1]
        self._require_rates(rates, np.asarray(position[-2:-1]))
        return position, [rates[0, group, ...] for group in range(self.groups)]

    def _in_jax(self, move: Move, *position: Array) -> tuple[tuple[Array, ...], list[Array]]:
        position = move(jnp, *position)
        return position, list(self._rounded(position[-2:], jnp)[0])

    def require_compilable(self) -> None:
        """Do nothing: the plan was checked when it was built."""


class ReduceLROnPlateau(FallingLR):
    r"""A rate that falls when a metric has stopped improving.

    After :math:`n` reductions,

    .. math::

        \eta = \max(\eta_\text{plan}(t) \, \text{factor}^n, \eta_\text{min})

    with the rate of ``scheduler``, or without one the base rate. The rate is reduced when the
    metric has not been better than ``best`` by ``threshold * |best|``, or by ``threshold`` in
    threshold mode ``'abs'``, for more than ``patience`` observations. NaN is not better, and
    ``best`` does not change during a cooldown.

    Parameters
    ----------
    base_lr, last_epoch : float, sequence or mapping of float; int
        The base rate of every param group, or one for each; the epoch to begin at.
    mode, factor : {'min', 'max'}, float
        Whether a lower or a higher metric is better; the factor of each reduction, in (0, 1).
    patience, cooldown : int
        Number of observations without an improvement to tolerate, and to ignore after a reduction.
    threshold, threshold_mode : float, {'rel', 'abs'}
        The change that counts as an improvement; below 1 with ``'min'`` and ``'rel'``.
    min_lr : float, sequence or mapping of float
        Lower bound of a reduced rate, at most the base rate. A warm-up below it is not lifted.
    eps : float
        Smallest reduction: a smaller one is skipped, and so are all later ones.
    scheduler : LRScheduler, optional
        The plan that is reduced, such as a warm-up, with the base rates: call ``step()`` once an
        epoch or update, and ``observe(metric)`` when there is one.

    Examples
    --------
    >>> import brainsched
    >>> scheduler = brainsched.ReduceLROnPlateau(base_lr=0.5, factor=0.5, patience=1)
    >>> for loss in [3.0, 2.0, 2.0, 2.0]:
    ...     scheduler.step(loss)
    >>> scheduler.applied_rates
    [0.25]

    References
    ----------
    The class of this name in PyTorch, ``torch.optim.lr_scheduler.ReduceLROnPlateau``.
    """

    _memory = ("best", "num_bad_epochs", "cooldown_counter", "reductions")
    _position_names = ("last_epoch", "reductions")

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
        *,
        scheduler: LRScheduler | None = None,
    ) -> None:
        self.mode = checks.one_of("mode", mode, ["min", "max"])
        self.factor = checks.within("factor", factor, "(0, 1)")
        self.patience = checks.count("patience", patience, least=0)
        self.threshold = checks.number("threshold", threshold)
        self.threshold_mode = checks.one_of("threshold_mode", threshold_mode, ["rel", "abs"])
        if mode == "min" and threshold_mode == "rel" and self.threshold >= 1:
            raise ValueError(f"threshold must be below 1 in modes 'min' and 'rel', got {threshold}")
        self.cooldown = checks.count("cooldown", cooldown, least=0)
        self.min_lr = min_lr
        self.eps = checks.number("eps", eps)
        self.scheduler = scheduler
        self._powers = Powers(self.factor)
        self.best = MetricState(np.asarray(math.inf if mode == "min" else -math.inf, np.float32))
        none = np.zeros((), epoch_dtype())
        self.num_bad_epochs = CountState(none)
        self.cooldown_counter = CountState(none)
        self.reductions = CountState(none)
        if scheduler is None:
            self._floor = Floor("min_lr", min_lr, None, base_lr)
            LRScheduler.__init__(self, base_lr, last_epoch)
            return
        require_part("scheduler", scheduler)
        if not (isinstance(base_lr, float) and base_lr == 1e-3):
            raise ValueError(f"base_lr is that of scheduler: leave it out, got {base_lr!r}")
        self.base_lr = base_lr
        self.max_groups = scheduler.max_groups
        self._floor = Floor("min_lr", min_lr, None, dict.fromkeys(scheduler.group_names))
        self._begin(scheduler._bases, last_epoch)

    def _evaluation_of(self, groups: int, bases: Bases) -> Evaluation:
        super()._evaluation_of(groups, bases)  # raises if it refuses them
        if self.scheduler is not None:
            self.scheduler._evaluation_of(groups, bases)
        numbers = arguments.numbers(self)
        return _OfEpochAndReductions(type(self).__name__, self.formula, numbers, bases, groups)

    def formula(self, epoch: Epochs, base_lrs: Any, xp: ModuleType) -> BaseLRs:
        """Reduce the plan; ``epoch`` has the epoch above the number of reductions."""
        scheduler = self.scheduler
        plan = base_lrs if scheduler is None else scheduler.formula(epoch[0], base_lrs, xp)
        base_lrs = jax.tree.leaves(base_lrs)[0]
        floors = self._floor(base_lrs, xp)
        # A rate that is lower than this is not reduced any more, by the two limits.
        lowest = xp.maximum(self.eps / (1 - self.factor), floors + self.eps)
        share = lowest / xp.where(base_lrs > 0, base_lrs, np.finfo(np.float64).tiny)
        estimate = xp.log(xp.maximum(share, np.finfo(np.float64).tiny)) / math.log(self.factor)
        estimate = xp.minimum(xp.maximum(xp.floor(estimate), 1), self._powers.last).astype(int)
        # The logarithm may be off by one; the powers themselves decide.
        reducible = [
            base_lrs * self._powers(estimate + offset, xp) >= lowest for offset in (-1, 0, 1)
        ]
        last = estimate - 1 + sum(found.astype(int) for found in reducible)
        times = xp.minimum(epoch[1].astype(int), last)
        return xp.maximum(plan * self._powers(times, xp), xp.minimum(floors, plan))

    def step(self, metric: Any = _LEFT_OUT, epoch: Any = None) -> None:  # type: ignore[override]
        """Go to the next epoch, or to ``epoch``; judge ``metric``, a scalar, if there is one."""
        now: Any = self.last_epoch.value if epoch is None else checks.epoch("epoch", epoch)
        if metric is not _LEFT_OUT:
            self._judge(self._next if epoch is None else self._jump, metric, now)
            return
        if self._replaced_by is not None:
            self._warn_that_it_was_replaced()
        move = _advance if epoch is None else stay
        (now, _), rates = self._evaluation(move, now, self.reductions.value)
        self._apply(rates)
        self.last_epoch.value = now

    def observe(self, metric: Any) -> None:
        """Judge ``metric``, a scalar that may be traced, and stay at the present epoch."""
        self._judge(self._jump, metric, self.last_epoch.value)

    def _judge(self, move: Move, metric: Any, now: Array) -> None:
        if self._replaced_by is not None:
            self._warn_that_it_was_replaced()
        metric = checks.metric("metric", metric)
        *memory, reductions = (getattr(self, name).value for name in self._memory)
        position, rates = self._evaluation(move, metric, *memory, now, reductions)
        self._apply(rates)
        for name, value in zip((*self._memory[:-1], *self._position_names), position, strict=True):
            getattr(self, name).value = value

    def _next(self, xp: ModuleType, *state: Array) -> tuple[Array, ...]:
        return self._jump(xp, *state[:4], *_advance(xp, *state[4:]))

    def _jump(
        self, xp: ModuleType, metric: Array, best: Array, bad: Array, rest: Array, *position: Array
    ) -> tuple[Array, ...]:
        """Return the memory and the position after ``metric``."""
        now, reductions = position
        cooling = rest > 0
        margin = self.threshold
        # A share of |best|: the usual best * (1 - threshold) lies above a best below 0 (PyTorch
        # #47513).
        if self.threshold_mode == "rel":  # best is infinite at first
            margin = margin * xp.where(xp.isfinite(best), xp.abs(best), 0)
        better = metric < best - margin if self.mode == "min" else metric > best + margin
        bad = xp.where(cooling, bad, xp.where(better, 0, bad + 1))
        best = xp.where(better & ~cooling, metric, best)
        reduce = ~cooling & (bad > self.patience)
        return (
            best,
            xp.where(reduce, 0, bad),
            xp.where(reduce, self.cooldown, xp.maximum(rest - 1, 0)),
            now,
            xp.where(reduce, reductions + 1, reductions),
        )

    def _require_pure(self, what: str, cure: str = "") -> None:
        cure = cure or ": give the plan to it, as ReduceLROnPlateau(scheduler=plan)"
        raise TypeError(
            f"{what} needs a rate that is a function of the epoch, and that of ReduceLROnPlateau "
            f"depends on the metrics of the run{cure}"
        )


def _advance(xp: ModuleType, epoch: Array, reductions: Array) -> tuple[Array, Array]:
    return (*advance(xp, epoch), reductions)
