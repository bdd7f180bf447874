"""Schedules made of schedules.

A composition is a pure function of the epoch, as its parts are. It evaluates their formulas; it
does not step them.
"""

import itertools
import warnings
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import jax
import numpy as np

from brainsched import checks
from brainsched.core.base_rates import JointBaseRates
from brainsched.core.evaluation import Bases, Evaluation
from brainsched.core.scheduler import LRScheduler
from brainsched.schedules.lengths import boundaries, reached
from brainsched.types import Array, Epochs, LRs, largest_epoch


def require_part(name: str, part: Any) -> None:
    """Raise unless ``part`` is a scheduler whose rate is a function of the epoch."""
    if not isinstance(part, LRScheduler):
        raise TypeError(f"{name} must be a scheduler of brainsched, got {type(part).__name__}")
    part._require_pure(name)


class Composition(LRScheduler):
    """What compositions share: each part has its own base rates, and groups join every part.

    Parameters
    ----------
    parts : mapping from str to LRScheduler
        The parts by the name of the argument that each was given as. Each has as many base rates
        as the others, or one for all groups. Those that are shown are the first one's.
    last_epoch : int or None
        The epoch to begin at; None for the present one of the first part.
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
            part._evaluation_of(groups, own)  # which raises where a part refuses the groups
        return super()._evaluation_of(groups, bases)


def _require_the_same_groups(parts: Mapping[str, Bases]) -> None:
    numbers = {name: len(part.listed) for name, part in parts.items() if len(part.listed) > 1}
    for name, number in numbers.items():
        first = next(iter(numbers))
        if number != numbers[first]:
            raise ValueError(
                f"the parts must have the same number of param groups: {first} has "
                f"{numbers[first]} base rates and {name} has {number}; give each a list base_lr "
                f"with an entry for each group, or one number for all"
            )
    names = {name: part.names for name, part in parts.items() if part.names}
    for name, found in names.items():
        first = next(iter(names))
        if found != names[first]:
            raise ValueError(
                f"the parts must name the param groups alike, in the same order: {first} has "
                f"{list(names[first])} and {name} has {list(found)}"
            )


def _numbered(schedulers: Any) -> dict[str, Any]:
    """Return the entries of ``schedulers``, which must be a sequence, by their names."""
    entries = checks.sequence("schedulers", schedulers, "schedulers")
    if not entries:
        raise ValueError("schedulers must have at least one scheduler, got an empty sequence")
    return {f"schedulers[{i}]": entry for i, entry in enumerate(entries)}


class SequentialLR(Composition):
    r"""One schedule after another, each from its own first epoch.

    .. math::

        \eta_t = \eta^{(i)}_{f_i + t - m_i}, \quad
        i = |\{\, m \in \text{milestones} : m \le t \,\}|

    with :math:`m_0 = 0`, :math:`m_i` = ``milestones[i - 1]`` and the ``last_epoch`` :math:`f_i`
    that the part was built with: 0, unless it is to begin on its way.

    Parameters
    ----------
    schedulers : sequence of LRScheduler
        The parts, each with base rates of its own, one for each param group or one for all;
        compositions too. The present epoch of a part is ignored.
    milestones : sequence of int or float
        The epochs at which the next part begins, ascending: one less than there are parts.
    last_epoch : int
        The epoch to begin at.

    Examples
    --------
    >>> import brainsched
    >>> scheduler = brainsched.SequentialLR(
    ...     [brainsched.WarmupScheduler(0.5, warmup_epochs=2),
    ...      brainsched.StepLR(0.5, step_size=3, gamma=0.5)],
    ...     milestones=[2],
    ... )
    >>> scheduler.lr_at(range(7)).ravel().tolist()
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
        parts = checks.sequence("schedulers", schedulers, "schedulers")
        if len(parts) != len(starts) + 1:
            raise ValueError(
                f"schedulers must have one entry more than there are milestones: "
                f"{len(starts) + 1} for {len(starts)} milestones, got {len(parts)}"
            )
        self._spans = list(itertools.pairwise([0, *starts, largest_epoch() + 1]))
        self.schedulers = parts
        super().__init__(_numbered(parts), last_epoch)

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
            own_epoch = part._first_epoch + xp.minimum(xp.maximum(epoch - start, 0.0), last)
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
        The parts, each with base rates of its own, one for each param group or one for all;
        compositions too. The position of a part is ignored.
    last_epoch : int
        The epoch to begin at.

    Examples
    --------
    >>> import brainsched
    >>> scheduler = brainsched.ChainedScheduler(
    ...     [brainsched.ConstantLR(0.5, factor=0.5, total_iters=2),
    ...      brainsched.ExponentialLR(1.0, gamma=0.5)]
    ... )
    >>> scheduler.lr_at(range(4)).ravel().tolist()
    [0.25, 0.125, 0.125, 0.0625]

    References
    ----------
    ``braintools.optim.ChainedScheduler``. PyTorch's chains the steps of its parts instead.
    """

    def __init__(self, schedulers: Sequence[LRScheduler], last_epoch: int = 0) -> None:
        parts = _numbered(schedulers)
        self.schedulers = list(parts.values())
        super().__init__(parts, last_epoch)
        bases = [part._bases.listed for part in self.schedulers]
        if any(isinstance(rate, jax.Array) for listed in bases for rate in listed):
            return
        if set(bases[0]) == {1} and any(set(listed) != {1} for listed in bases):
            warnings.warn(
                "ChainedScheduler uses the base rate of `schedulers[0]`. Reorder the parts.",
                UserWarning,
                stacklevel=3,
            )

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
