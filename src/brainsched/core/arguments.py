"""The arguments of a scheduler's constructor, everything its schedule depends on; its base rates.

A schedule is a pure function of the epoch because nothing else that it is computed from can
change: the arguments are copied when the scheduler is built, and cannot be assigned or changed in
place afterwards. A checkpoint records them, and they rebuild the scheduler.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn, Protocol

import jax
import numpy as np

from brainsched import checks
from brainsched.types import Array, Rate, rate_dtype


class Keeps(Protocol):
    """What this module needs of a scheduler: each argument is an attribute of the same name."""

    _first_epoch: int
    _parts_are_in_epochs: bool


def _refuse(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
    raise TypeError("this is an argument of a scheduler, and fixed: build a new scheduler")


class FixedList(list[Any]):
    """A list that cannot be changed: an argument as the user gave it."""

    append = extend = insert = remove = pop = clear = sort = reverse = _refuse
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (list(self),)  # without it, pickle and copy would append to it


def _plain_list(_: None, entries: Any) -> Any:
    return list(entries)  # what JAX makes from an argument is not an argument


# JAX treats other subclasses of list as leaves. This one is a node with a list's keys.
jax.tree_util.register_pytree_with_keys(
    FixedList,
    lambda entries: ([(jax.tree_util.SequenceKey(i), v) for i, v in enumerate(entries)], None),
    _plain_list,
)


class FixedDict(dict[str, Any]):
    """A dict that cannot be changed: an argument as the user gave it, in its order."""

    __setitem__ = __delitem__ = __ior__ = _refuse
    pop = popitem = clear = update = setdefault = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)  # without it, pickle and copy would assign its entries


def fixed(value: Any) -> Any:
    """Return a copy of an argument that cannot be changed in place."""
    if isinstance(value, list):
        return FixedList(map(fixed, value))
    if isinstance(value, Mapping):
        return FixedDict({name: fixed(entry) for name, entry in value.items()})
    if type(value) is tuple:
        return tuple(map(fixed, value))
    if isinstance(value, np.ndarray):
        value = np.array(value)
        value.flags.writeable = False
    return value


def fix(scheduler: "Keeps") -> None:
    """Replace the arguments of ``scheduler``, and what was derived from them, with fixed copies."""
    attributes = scheduler.__dict__
    names = inspect.signature(type(scheduler)).parameters
    for name, value in attributes.items():
        if isinstance(value, list | np.ndarray) or name in names:
            attributes[name] = fixed(value)


def _given(scheduler: "Keeps") -> list[Any]:
    names, attributes = inspect.signature(type(scheduler)).parameters, scheduler.__dict__
    return [attributes[name] for name in names if name in attributes and name != "last_epoch"]


def parts(scheduler: "Keeps") -> "Iterator[Keeps]":
    """Yield the schedulers among the arguments, and those among theirs."""
    stack = _given(scheduler)
    while stack:
        value = stack.pop()
        if isinstance(value, list | tuple):
            stack.extend(value)
        elif hasattr(value, "formula"):
            yield value
            yield from parts(value)


def counts_updates(scheduler: "Keeps") -> "Keeps | None":
    """Return the scheduler or the part whose epochs are updates, or None."""
    wholes = [scheduler, *parts(scheduler)]
    return next((whole for whole in wholes if whole._parts_are_in_epochs), None)


def numbers(scheduler: "Keeps") -> list[Any]:
    """Return everything that the formula is computed from: numbers, arrays and functions."""
    found = []
    stack = _given(scheduler)
    while stack:
        leaf = stack.pop()
        if isinstance(leaf, list | tuple):  # it may contain schedulers
            stack.extend(leaf)
        elif isinstance(leaf, FixedDict):
            stack.extend(leaf.values())
        elif hasattr(leaf, "formula"):
            found.extend(numbers(leaf))
        else:
            found.append(leaf)
    return found


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

    def first(self, groups: int) -> list[Rate]:
        """Return those of the first ``groups`` groups."""
        own = {**dict(enumerate(self.listed)), **self.given}
        return [own.get(group, self.listed[-1]) for group in range(groups)]

    @property
    def known(self) -> int:
        """Number of groups with a base rate of their own, including those yet to be added."""
        return max(len(self.listed), max(self.given, default=-1) + 1)

    def adding(self, group: int, lr: Any) -> "BaseRates":
        """Return the base rates once ``group`` is added with ``lr``.

        Raises
        ------
        TypeError, ValueError
            If ``lr`` is not a rate, or differs from the group's entry in ``base_lr``.
        """
        lr = checks.rate(f"lr of param group {group}", lr)
        if group >= len(self.listed) and group not in self.given:
            return dataclasses.replace(self, given={**self.given, group: lr})
        present = self.first(group + 1)[group]
        if not _equal(present, lr):
            raise ValueError(
                f"param group {group} was added with lr={lr}, but its base rate is {present}: give "
                f"one of the two, or the same"
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
