"""The arguments of a scheduler's constructor: all that its schedule depends on, and fixed.

A schedule is a pure function of the epoch because nothing else that it is calculated from can
change: the arguments are copied when the scheduler is built, and cannot be assigned or changed in
place after that. So they are also what a checkpoint records and what rebuilds the scheduler.
"""

import contextlib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import jax
import numpy as np

if TYPE_CHECKING:
    from brainsched.core.schedule import Schedule
    from brainsched.core.scheduler import LRScheduler


def parameters(cls: "type[Schedule]") -> tuple[str, ...]:
    """Return the names of the constructor's parameters.

    Raises
    ------
    TypeError
        If the class could not be rebuilt from its arguments.
    """
    found = inspect.signature(cls).parameters
    for parameter in found.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(
                f"{cls.__name__}.__init__ takes {parameter}, so that its arguments are not known: "
                f"name each one, as a config and a checkpoint rebuild the scheduler from them"
            )
    if "last_epoch" not in found:
        raise TypeError(
            f"{cls.__name__}.__init__ has no parameter last_epoch, without which it cannot be "
            f"rebuilt at its position: add last_epoch=0, and pass it to super().__init__"
        )
    return tuple(found)


@jax.tree_util.register_pytree_with_keys_class
class FixedList(list[Any]):
    """A list that cannot be changed: an argument as the user gave it.

    To JAX, which takes any other subclass of list for a leaf, it is a node with a list's keys.
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
        """Return a plain list: what is made from an argument is none."""
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


def fix(scheduler: "LRScheduler") -> None:
    """Replace the arguments that ``scheduler`` keeps by copies that cannot be changed.

    Raises
    ------
    TypeError
        If it does not keep one.
    """
    cls = type(scheduler)
    attributes = scheduler.__dict__
    if len(inspect.signature(scheduler.formula).parameters) != 3:
        raise TypeError(f"{cls.__name__}.formula must take (self, epoch, base_lrs, xp)")
    for name in parameters(cls):
        if name not in attributes:
            raise TypeError(
                f"{cls.__name__}.__init__ takes {name} and does not keep it: write "
                f"self.{name} = {name} before super().__init__"
            )
    for name, value in attributes.items():
        if isinstance(value, list | np.ndarray) or name in parameters(cls):
            attributes[name] = fixed(value)  # what is derived from the arguments, too


def base_lr_left_out(scheduler: "LRScheduler") -> str | None:
    """Return the name of the argument for the base rate, if ``scheduler`` was built without it.

    The very object tells, since an equal number that was given is one that was meant.
    """
    first = next(iter(inspect.signature(type(scheduler)).parameters.values()))
    return first.name if getattr(scheduler, "base_lr", None) is first.default else None


def parts(scheduler: "LRScheduler") -> "Iterator[LRScheduler]":
    """Yield the schedulers among the arguments, and those among theirs."""
    stack = [getattr(scheduler, name) for name in parameters(type(scheduler))]
    while stack:
        value = stack.pop()
        if isinstance(value, list | tuple):
            stack.extend(value)
        elif hasattr(value, "formula"):
            yield value
            yield from parts(value)


def counts_updates(scheduler: "LRScheduler") -> "LRScheduler | None":
    """Return the scheduler, or the part, that makes its epochs updates, if one does."""
    wholes = [scheduler, *parts(scheduler)]
    return next((whole for whole in wholes if whole._parts_are_in_epochs), None)


def numbers(scheduler: "Schedule") -> Iterator[Any]:
    """Yield all that the formula is calculated from: numbers, arrays and functions."""
    names = [name for name in parameters(type(scheduler)) if name != "last_epoch"]
    stack = [getattr(scheduler, name) for name in names]
    while stack:
        leaf = stack.pop()
        if isinstance(leaf, FixedList):  # there may be schedulers in it
            stack.extend(leaf)
        elif isinstance(leaf, FixedDict):
            stack.extend(leaf.values())
        elif hasattr(leaf, "formula"):
            yield from numbers(leaf)
        else:
            yield from jax.tree.leaves(leaf)


def refuse(scheduler: "LRScheduler", name: str) -> NoReturn:
    """Raise an AttributeError that says why an attribute cannot be assigned."""
    cls = type(scheduler).__name__
    if name in parameters(type(scheduler)):
        why = f"an argument of a scheduler that is built is fixed: build a new {cls}"
    elif name == "optimizer":
        why = "call attach_optimizer(optimizer)"
    elif name == "epoch":
        why = "call step(epoch) to go to another epoch"
    elif name in ("current_lrs", "_current_lrs"):
        why = "write its value, current_lrs.value, or call apply"
    else:
        why = (
            "a scheduler that is built is fixed, since its rates depend on nothing but the epoch. "
            "In a class of yours, set attributes before super().__init__, which comes last"
        )
    raise AttributeError(f"{cls}.{name} cannot be assigned: {why}")


class NotBuilt:
    """What a scheduler has in the place of an attribute that only its base's constructor sets."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, scheduler: "LRScheduler | None", cls: type) -> Any:
        if scheduler is None:
            return self
        raise AttributeError(
            f"this {cls.__name__} was not built: its __init__ must end with "
            f"super().__init__(base_lr, last_epoch)",
            name=self._name,
            obj=scheduler,
        )


# What a formula has as an argument, by the attributes that it might read in its place.
_GIVEN = {
    "base_lr": "its argument base_lrs",
    "_bases": "its argument base_lrs",
    "last_epoch": "its argument epoch",
    "_current_lrs": "its arguments, epoch and base_lrs",
    "_evaluation": "its arguments, epoch and base_lrs",
}
_HIDDEN = ("base_lr", "last_epoch", "_current_lrs")


@contextlib.contextmanager
def first_evaluation(scheduler: "Schedule") -> Iterator[None]:
    """Keep the base rate and the position from a formula, which has them as its arguments.

    It is evaluated for many epochs at once, and for param groups that come later: what it reads
    from the scheduler in their place stands still. So it goes without while it is evaluated for
    the first time, which costs nothing afterwards. An error about an attribute that is not there
    names the cure. (``__getattr__`` would, too, and make every other one slower to look up.)
    """
    cls = type(scheduler).__name__
    attributes = scheduler.__dict__
    hidden = {name: attributes.pop(name) for name in _HIDDEN if name in attributes}
    try:
        yield
    except AttributeError as error:
        if error.obj is not scheduler:
            raise
        if error.name in _GIVEN:
            name = error.name.lstrip("_")
            raise AttributeError(
                f"{cls}.formula reads self.{name}, which stays as it is when other epochs and "
                f"param groups are asked for: use {_GIVEN[error.name]}"
            ) from error
        raise AttributeError(
            f"{cls} has no attribute {error.name!r} when its formula is evaluated for the first "
            f"time, by super().__init__: set self.{error.name} before that call, which comes last"
        ) from error
    finally:
        attributes.update(hidden)
