"""Rates that rise and fall: again and again, or once."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

from brainsched import checks
from brainsched.core.scheduler import LRScheduler
from brainsched.schedules.curves import between, fall, progress
from brainsched.schedules.floors import FallingLR, GroupRates
from brainsched.schedules.functional import evaluate
from brainsched.schedules.stages import length, periods
from brainsched.types import BaseLRs, Epochs, LRs, Rates


class CyclicLR(LRScheduler):
    r"""A rate that rises from the base rate to ``max_lr`` and falls back, in cycles.

    .. math::

        \eta_t = \eta_\text{base} + (\eta_\text{max} - \eta_\text{base}) \, x_t \, s_t

    :math:`x_t` goes straight from 0 to 1 and back in cycle :math:`i = 0, 1, \dots`; :math:`s_t` is
    1 in mode 'triangular', :math:`2^{-i}` in 'triangular2', :math:`\gamma^t` in 'exp_range'.

    Parameters
    ----------
    base_lr, max_lr, last_epoch : float, sequence or mapping of float; int
        The lowest and highest rate of every param group, or one for each; the epoch to begin at.
    step_size_up, step_size_down : int or float
        How long the rate rises and falls; by default, the same for both.
    mode, gamma : {'triangular', 'triangular2', 'exp_range'}, float
        How the height of the cycles changes; :math:`\gamma` is in (0, 1].
    scale_fn, scale_mode : callable, {'cycle', 'iterations'}, optional
        Instead of ``mode``: a function from the cycle, counted from 1.0, or from the epoch, to
        :math:`s_t` in [0, 1]. JAX traces it.

    Examples
    --------
    >>> import brainsched
    >>> scheduler = brainsched.CyclicLR(0.0, 1.0, step_size_up=2, mode="triangular2")
    >>> scheduler.lr_at(range(7)).ravel().tolist()
    [0.0, 0.5, 1.0, 0.5, 0.0, 0.25, 0.5]

    References
    ----------
    Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017.
    """

    def __init__(
        self,
        base_lr: Rates = 1e-3,
        max_lr: Rates = 1e-2,
        step_size_up: int | float = 2000,
        step_size_down: int | float | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[Any], Any] | None = None,
        scale_mode: str = "cycle",
        last_epoch: int = 0,
    ) -> None:
        self.max_lr = max_lr
        self._top = GroupRates("max_lr", max_lr, base_lr)
        self.step_size_up = length("step_size_up", step_size_up)
        down = step_size_up if step_size_down is None else step_size_down
        self.step_size_down = length("step_size_down", down)
        self._period = self.step_size_up + self.step_size_down
        self.mode = checks.one_of("mode", mode, ["triangular", "triangular2", "exp_range"])
        self.gamma = checks.within("gamma", gamma, "(0, 1]")
        self.scale_fn = scale_fn
        self.scale_mode = checks.one_of("scale_mode", scale_mode, ["cycle", "iterations"])
        super().__init__(base_lr, last_epoch)

    def formula(self, epoch: Epochs, base_lrs: BaseLRs, xp: ModuleType) -> LRs:
        """Rise and fall, and scale; see :meth:`LRScheduler.formula`."""
        cycle, position = periods(epoch, self._period, xp)
        rise = progress(position, self.step_size_up, xp).done
        left = progress(position - self.step_size_up, self.step_size_down, xp).left
        scale: Any = 1.0
        if self.scale_fn is not None:
            counts = epoch if self.scale_mode == "iterations" else cycle + 1.0
            scale = evaluate("scale_fn", self.scale_fn, counts)
        elif self.mode == "triangular2":
            scale = 0.5**cycle
        elif self.mode == "exp_range":
            scale = self.gamma**epoch
        height = rise * left * scale
        return base_lrs * (1 - height) + self._top(base_lrs, xp) * height


class OneCycleLR(FallingLR):
    r"""A rate that rises to ``max_lr`` once, and falls to far below where it began.

    .. math::

        \eta_t = \begin{cases}
            \eta_\text{max} (1 / d + (1 - 1 / d) \, t / P) & t < P \\
            \eta_\text{max} (1 / f + (1 - 1 / f) \, a(\frac{t - P}{T - P})) & P \le t \le T
        \end{cases}

    with the peak at :math:`P = \text{pct\_start} \, T`, factors :math:`d` and :math:`f`, and a
    strategy :math:`a` that falls from 1 to 0; then constant. In PyTorch's class the way up follows
    the strategy too, and the last rate is the first one divided by ``final_div_factor``.

    Parameters
    ----------
    max_lr, last_epoch : float, sequence or mapping of float; int
        The highest rate, which is the base rate here; the epoch to begin at.
    total_steps : int or float, optional
        In epochs; in updates if stepped once an update: when the rate stops falling, :math:`T`.
    epochs, steps_per_epoch : int, optional
        Their product is ``total_steps`` where that is not given.
    pct_start, anneal_strategy : float, {'cos', 'linear'}
        The share of the steps for the way up, in (0, 1); the way down.
    div_factor, final_div_factor : float
        How many times higher ``max_lr`` is than the first and the last rate: 1 or more.
    eta_min, eta_min_ratio : float, sequence or mapping of float; float, optional
        The last rate, instead of by ``final_div_factor``: at most ``max_lr``, or a share of it.

    Examples
    --------
    >>> import brainsched
    >>> scheduler = brainsched.OneCycleLR(max_lr=1.0, total_steps=8, pct_start=0.25, div_factor=4.0)
    >>> scheduler.lr_at([0, 1, 2, 4, 8]).round(4).ravel().tolist()
    [0.25, 0.625, 1.0, 0.75, 9.999999747378752e-05]

    References
    ----------
    Smith and Topin, "Super-Convergence", 2018, https://arxiv.org/abs/1708.07120.
    """

    def __init__(
        self,
        max_lr: Rates = 1e-2,
        total_steps: int | float | None = None,
        epochs: int | float | None = None,
        steps_per_epoch: int | float | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        last_epoch: int = 0,
        *,
        eta_min: Rates | None = None,
        eta_min_ratio: float | None = None,
    ) -> None:
        self.max_lr = max_lr
        GroupRates("max_lr", max_lr, max_lr)  # under that name, should a rate be wrong
        self.epochs, self.steps_per_epoch = epochs, steps_per_epoch
        if total_steps is not None:
            self.total_steps = length("total_steps", total_steps)
        elif epochs is None or steps_per_epoch is None:
            raise ValueError("OneCycleLR needs total_steps or both epochs and steps_per_epoch")
        else:
            product = length("epochs", epochs) * length("steps_per_epoch", steps_per_epoch)
            self.total_steps = length("epochs * steps_per_epoch", product)
        self.anneal_strategy = checks.one_of("anneal_strategy", anneal_strategy, ["cos", "linear"])
        self.pct_start = checks.within("pct_start", pct_start, "(0, 1)")
        self.div_factor = checks.within("div_factor", div_factor, "[1, inf)")
        self.final_div_factor = checks.within("final_div_factor", final_div_factor, "[1, inf)")
        self._by_factor = eta_min is None and eta_min_ratio is None
        super().__init__(max_lr, last_epoch, eta_min, eta_min_ratio)

    def formula(self, epoch: Epochs, base_lrs: BaseLRs, xp: ModuleType) -> LRs:
        """Rise, then anneal; see :meth:`LRScheduler.formula`."""
        peak = self.pct_start * self.total_steps
        rise = progress(epoch, peak, xp)
        way = progress(epoch - peak, self.total_steps - peak, xp)
        by_factor = base_lrs * (1 / self.final_div_factor)
        last = by_factor if self._by_factor else self._floor(base_lrs, xp)
        return xp.where(
            epoch < peak,
            between(base_lrs * (1 / self.div_factor), base_lrs, rise),
            fall(base_lrs, last, way, self.anneal_strategy, 1.0, xp),
        )
