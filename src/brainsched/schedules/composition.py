"""Schedules made of schedules.

A composition is a pure function of the epoch, as its parts are. It evaluates their formulas; it
does not step them.
"""

import itertools
import warnings
from collections.abc import Mapping, Sequence
from fractions import Fraction
from types import ModuleType
from typing import Any

import jax
import numpy as np

from brainsched import checks
from brainsched.core.arguments import JointBaseRates
from brainsched.core.evaluation import Bases, Evaluation
from brainsched.core.scheduler import LRScheduler
from brainsched.schedules.stages import boundaries, length, quotient, reached
from brainsched.types import Array, Epochs, LRs, largest_epoch


def require_part(name: str, part: Any) -> None:
    """Raise unless ``part`` is a scheduler whose rate is a function of the epoch."""
    if not isinstance(part, LRScheduler):
        raise TypeError(f"{name} must be a scheduler of brainsched, got {type(part).__name__}")
    part._require_pure(name)


class Composition(LRScheduler):
    """What compositions share: each part has its own base rates, and groups join every part.

    ``parts`` has the parts by the name of their argument, each with as many base rates as the
    others, or one for all groups. What is shown are those, and the present epoch, of the first.
    """

    def __init__(self, parts: Mapping[str, LRScheduler], last_epoch: int | None) -> None:
        for name, part in parts.items():
            require_part(name, part)
        _require_the_same_groups({name: part._bases for name, part in parts.items()})
        limits = [part.max_groups for part in parts.values() if part.max_groups is not None]
        self.max_groups = min(limits, default=None)
        self._parts = tuple(parts.values())
        first = self._parts[0].epoch if last_epoch is None else last_epoch
        self._begin(JointBaseRates(tuple(part._bases for part in self._parts)), first)

    def _evaluation_of(self, groups: int, bases: Any) -> Evaluation:
        for part, own in zip(self._parts, bases.parts, strict=True):
            part._evaluation_of(groups, own)  # raises if a part refuses the groups
        return super()._evaluation_of(groups, bases)


def _require_the_same_groups(parts: Mapping[str, Bases]) -> None:
    numbers = {name: len(part.listed) for name, part in parts.items() if len(part.listed) > 1}
    names = {name: list(part.names) for name, part in parts.items() if part.names}
    for found, what, unit in (
        (numbers, "have as many base rates as each other, or one for all groups", " base rates"),
        (names, "name the param groups alike, in the same order", ""),
    ):
        for name, value in found.items():
            first, expected = next(iter(found.items()))
            if value != expected:
                raise ValueError(
                    f"the parts must {what}: {first} has {expected}{unit} and {name} has {value}"
                )


def _numbered(schedulers: Any) -> dict[str, Any]:
    """Return the entries of ``schedulers``, which must be a sequence, by their names."""
    entries = checks.sequence("schedulers", schedulers, "schedulers")
    return {f"schedulers[{i}]": entry for i, entry in enumerate(entries)}


class SequentialLR(Composition):
    r"""One schedule after another, each from its own first epoch.

    .. math::

        \eta_t = \eta^{(i)}_{f_i + t - m_i}, \quad
        i = |\{\, m \in \text{milestones} : m \le t \,\}|

    with :math:`m_0 = 0`, :math:`m_i` = ``milestones[i - 1]`` and the ``last_epoch`` :math:`f_i`
    that the part was built with, usually 0.

    Parameters
    ----------
    schedulers : sequence of LRScheduler
        The parts, each with base rates of its own; compositions too. Their position is ignored.
    milestones : sequence of int or float
        The epochs at which the next part begins, ascending: one fewer than there are parts.
    last_epoch : int
        The epoch to begin at.

    Examples
    --------
    >>> import brainsched
    >>> warmup = brainsched.WarmupScheduler(0.5, warmup_epochs=2)
    >>> steps = brainsched.StepLR(0.5, step_size=3, gamma=0.5)
    >>> brainsched.SequentialLR([warmup, steps], milestones=[2]).lr_at(range(7)).ravel().tolist()
    [0.0, 0.25, 0.5, 0.5, 0.5, 0.25, 0.25]

    References
    ----------
    The class of this name in PyTorch, ``torch.optim.lr_scheduler.SequentialLR``.
    """

    def __init__(
        self,
        schedulers: Sequence[LRScheduler],
        milestones: Sequence[int | float] | Array,
        last_epoch: int = 0,
    ) -> None:
        self.milestones = milestones
        starts = boundaries("milestones", milestones)
        parts = _numbered(schedulers)
        if len(parts) != len(starts) + 1:
            count = f"one entry more than milestones, {len(starts) + 1} in all"
            raise ValueError(f"schedulers must have {count}, got {len(parts)}")
        self._spans = list(itertools.pairwise([0, *starts, largest_epoch() + 1]))
        self.schedulers = list(parts.values())
        super().__init__(parts, last_epoch)

    @property
    def stage_boundaries(self) -> Sequence[float]:
        """The epochs at which a part begins, and those of the parts within their spans."""
        return sorted(
            {
                start + since
                for part, (start, end) in zip(self.schedulers, self._spans, strict=True)
                for since in [0, *(at - part._first_epoch for at in part.stage_boundaries)]
                if since >= 0 and 0 < start + since < end
            }
        )

    def formula(self, epoch: Epochs, base_lrs: Any, xp: ModuleType) -> LRs:
        """Evaluate each part within its span, and select; see :meth:`LRScheduler.formula`."""
        rates: Any = 0.0
        for part, bases, (start, end) in zip(self.schedulers, base_lrs, self._spans, strict=True):
            last = np.nextafter(float(end - start), 0.0)  # of its span, which ends before ``end``
            own_epoch = xp.minimum(xp.maximum(epoch - start, 0.0), last)
            if part._first_epoch:  # XLA keeps a sum with 0
                own_epoch = own_epoch + part._first_epoch
            begun = epoch >= float(reached(start))
            rates = xp.where(begun, part.formula(own_epoch, bases, xp), rates)
        return rates


class ChainedScheduler(Composition):
    r"""Several schedules at once: the product of what each makes of its base rate.

    .. math::

        \eta_t = \eta^{(0)}_\text{base} \prod_i \eta^{(i)}_t / \eta^{(i)}_\text{base}

    and 0 where a base rate is 0.

    Parameters
    ----------
    schedulers : sequence of LRScheduler
        The parts, each with base rates of its own; compositions too. Their position is ignored.
    last_epoch : int
        The epoch to begin at.

    Examples
    --------
    >>> import brainsched
    >>> half = brainsched.ConstantLR(0.5, factor=0.5, total_iters=2)
    >>> decay = brainsched.ExponentialLR(1.0, gamma=0.5)
    >>> brainsched.ChainedScheduler([half, decay]).lr_at(range(4)).ravel().tolist()
    [0.25, 0.125, 0.125, 0.0625]

    References
    ----------
    ``braintools.optim.ChainedScheduler``. PyTorch's chains the steps of its parts instead.
    """

    def __init__(self, schedulers: Sequence[LRScheduler], last_epoch: int = 0) -> None:
        parts = _numbered(schedulers)
        if not parts:
            raise ValueError("schedulers must have at least one scheduler, got an empty sequence")
        self.schedulers = list(parts.values())
        super().__init__(parts, last_epoch)
        bases = [part._bases.listed for part in self.schedulers]
        known = not any(isinstance(rate, jax.Array) for listed in bases for rate in listed)
        if known and set(bases[0]) == {1} and any(set(listed) != {1} for listed in bases):
            message = "ChainedScheduler uses the base rate of `schedulers[0]`. Reorder the parts."
            warnings.warn(message, UserWarning, stacklevel=3)

    @property
    def stage_boundaries(self) -> Sequence[float]:
        """Those of all parts."""
        return sorted({boundary for part in self.schedulers for boundary in part.stage_boundaries})

    def formula(self, epoch: Epochs, base_lrs: Any, xp: ModuleType) -> LRs:
        """Multiply the factors; see :meth:`LRScheduler.formula`."""
        result = 1.0
        all_present = True
        for i, (part, bases) in enumerate(zip(self.schedulers, base_lrs, strict=True)):
            own = jax.tree.leaves(bases)[0]
            is_zero = own == 0
            rate = part.formula(epoch, bases, xp)
            # Not rate / own: XLA turns a division by a constant into this product.
            result = result * (rate if i == 0 else rate * (1 / xp.where(is_zero, 1.0, own)))
            all_present = all_present & ~is_zero
        return xp.where(all_present, xp.minimum(result, checks.LARGEST_RATE), 0.0)


class PerUpdate(Composition):
    r"""A schedule in epochs, stretched so that it can be stepped once an update.

    .. math::

        \eta_n = \eta^\text{part}_{n / s}

    after :math:`n` updates, with :math:`s` = ``steps_per_epoch``. Its own epochs are updates:
    ``last_epoch``, ``step(epoch)`` and the milestones of a :class:`SequentialLR` around it count
    them.

    Parameters
    ----------
    scheduler : LRScheduler
        The part, in epochs; a composition too. Its position is ignored.
    steps_per_epoch : float
        The number of updates in an epoch of the part: ``len(data) / batch_size``, whole or not.
    staircase : bool
        Hold the rate of the part's last whole epoch until the next begins.
    last_epoch : int
        The update to begin at.

    Examples
    --------
    >>> import brainsched
    >>> warmup = brainsched.WarmupScheduler(base_lr=1.0, warmup_epochs=2)
    >>> brainsched.PerUpdate(warmup, steps_per_epoch=4).lr_at(range(10)).ravel().tolist()
    [0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0, 1.0]
    """

    _parts_are_in_epochs = True

    def __init__(
        self,
        scheduler: LRScheduler,
        steps_per_epoch: int | float,
        staircase: bool = False,
        last_epoch: int = 0,
    ) -> None:
        self.scheduler = scheduler
        self.steps_per_epoch: Any = length("steps_per_epoch", steps_per_epoch)
        self._steps = Fraction(self.steps_per_epoch).limit_denominator(1_000_000)
        self.staircase = checks.flag("staircase", staircase)
        super().__init__({"scheduler": scheduler}, last_epoch)

    @property
    def stage_boundaries(self) -> Sequence[float]:
        """Those of the part, in updates."""
        return [at * self.steps_per_epoch for at in self.scheduler.stage_boundaries]

    def formula(self, epoch: Epochs, base_lrs: Any, xp: ModuleType) -> LRs:
        """Evaluate the part at the quotient; see :meth:`LRScheduler.formula`."""
        updates = epoch * self._steps.denominator  # exact: both are integers
        part_epoch = quotient(updates, self._steps.numerator)
        if self.staircase:
            part_epoch = xp.floor(part_epoch)
        (bases,) = base_lrs
        return self.scheduler.formula(part_epoch, bases, xp)
