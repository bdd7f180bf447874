"""The base rate of every param group: what its rate is at multiplier 1."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from brainsched import checks
from brainsched.types import Array, Rate, rate_dtype


@dataclasses.dataclass(frozen=True)
class BaseRates:
    """The ``lr=`` that a group was added with; else its entry in ``base_lr``; else the last one.

    Parameters
    ----------
    listed : tuple of rates
        The entries of ``base_lr``, at least one.
    given : dict from int to rate
        The ``lr=`` of groups that ``base_lr`` has no entry for.
    names : tuple of str
        The name of each entry, where ``base_lr`` gives names.
    """

    listed: tuple[Rate, ...]
    given: dict[int, Rate] = dataclasses.field(default_factory=dict)
    names: tuple[str, ...] = ()

    def __getitem__(self, group: int) -> Rate:
        last = len(self.listed) - 1
        return self.given[group] if group in self.given else self.listed[min(group, last)]

    def first(self, groups: int) -> list[Rate]:
        """Return those of the first ``groups`` groups."""
        return [self[group] for group in range(groups)]

    @property
    def known(self) -> int:
        """Number of groups with a base rate of their own, including those yet to be added."""
        return max(len(self.listed), max(self.given, default=-1) + 1)

    def adding(self, group: int, lr: Any) -> "BaseRates":
        """Return the base rates once ``group`` is added with ``lr``, which may be None.

        Raises
        ------
        TypeError, ValueError
            If ``lr`` is not a rate, or differs from the group's entry in ``base_lr``.
        """
        if lr is None:
            return self
        lr = checks.rate(f"lr of param group {group}", lr)
        if group >= len(self.listed) and group not in self.given:
            return dataclasses.replace(self, given={**self.given, group: lr})
        if not _equal(self[group], lr):
            raise ValueError(
                f"param group {group} was added with lr={lr}, but its base rate is "
                f"{self[group]}: give one of the two, or the same"
            )
        return self

    def arrays(self, groups: int, stack: Callable[[list[Rate]], Array]) -> Array:
        """Return those of the first ``groups`` groups, as the array that ``stack`` makes."""
        return stack(self.first(groups))


@dataclasses.dataclass(frozen=True)
class JointBaseRates:
    """The base rates of a composition: each part has its own; the first part's are reported.

    A part with a single base rate uses it for every group. There is at least one part.
    """

    parts: tuple["BaseRates | JointBaseRates", ...]

    @property
    def listed(self) -> tuple[Rate, ...]:
        """The first part's, for as many groups as a part lists base rates for."""
        return tuple(self.first(max(len(part.listed) for part in self.parts)))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the groups, the same in every part that has names."""
        return next((part.names for part in self.parts if part.names), ())

    @property
    def known(self) -> int:
        """Number of groups with a base rate of their own in some part."""
        return max(part.known for part in self.parts)

    def first(self, groups: int) -> list[Rate]:
        """Return the first part's of the first ``groups`` groups."""
        return self.parts[0].first(groups)

    def adding(self, group: int, lr: Any) -> "JointBaseRates":
        """Return the base rates once ``group`` joins every part: see :meth:`BaseRates.adding`."""
        return JointBaseRates(tuple(part.adding(group, lr) for part in self.parts))

    def arrays(self, groups: int, stack: Callable[[list[Rate]], Array]) -> tuple[Any, ...]:
        """Return a tuple of each part's arrays: see :meth:`BaseRates.arrays`."""
        return tuple(part.arrays(groups, stack) for part in self.parts)


def _equal(rate: Rate, other: Rate) -> bool:
    """Whether two rates are equal once rounded; those on a device or traced are not compared."""
    if isinstance(rate, jax.Array) or isinstance(other, jax.Array):
        return rate is other
    to_rate = rate_dtype().type
    return bool(to_rate(rate) == to_rate(other))
