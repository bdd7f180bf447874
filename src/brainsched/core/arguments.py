"""The arguments of a scheduler's constructor: everything its schedule depends on.

A schedule is a pure function of the epoch because nothing else that it is computed from can
change: the arguments are copied when the scheduler is built, and cannot be assigned or changed in
place afterwards. A checkpoint records them, and they rebuild the scheduler.
"""

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn, Protocol

import jax
import numpy as np


class Keeps(Protocol):
    """What this module needs of a scheduler: each argument is an attribute of the same name."""

    _first_epoch: int
    _parts_are_in_epochs: bool


@jax.tree_util.register_pytree_with_keys_class
class FixedList(list[Any]):
    """A list that cannot be changed: an argument as the user gave it.

    JAX treats other subclasses of list as leaves. This one is a node with a list's keys.
    """

    # Why it cannot be changed, and what to do instead.
    _why = "this list is an argument of a scheduler, and fixed: build a new scheduler"

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(self._why)

    append = extend = insert = remove = pop = clear = sort = reverse = _refuse
    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (list(self),)  # without it, pickle and copy would append to it

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], None]:
        """Flatten like a list."""
        return [(jax.tree_util.SequenceKey(i), entry) for i, entry in enumerate(self)], None

    @classmethod
    def tree_unflatten(cls, _: None, entries: Iterable[Any]) -> list[Any]:
        """Return a plain list: what JAX makes from an argument is not an argument."""
        return list(entries)


class FixedDict(dict[str, Any]):
    """A dict that cannot be changed: an argument as the user gave it, in its order."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("this dict is an argument of a scheduler, and fixed: build a new scheduler")

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
