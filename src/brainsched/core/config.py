"""A scheduler's arguments as plain JSON types, and whether two such configs are equal.

The inverse is :mod:`brainsched.configs.from_config`.
"""

import functools
import inspect
import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

# By module and name: a class replaces only itself, as when a notebook's cell is run again.
_classes: dict[str, Any] = {}
_our_names: set[str] = set()
_listeners: list[Callable[[type], None]] = []


def register(cls: type) -> None:
    """Let ``from_config`` find a scheduler class by its name."""
    _classes[full_name(cls)] = cls
    if is_ours(cls):
        _our_names.add(cls.__name__)
    for listener in _listeners:
        listener(cls)


def full_name(cls: type) -> str:
    """Return the name of a class with its module."""
    return f"{cls.__module__}.{cls.__qualname__}"


def name_of(cls: type) -> str:
    """Return the name of a class in a config: with its module if it is the name of ours."""
    return full_name(cls) if cls.__name__ in _our_names and not is_ours(cls) else cls.__name__


def is_ours(cls: type) -> bool:
    """Whether a class is one of this package."""
    return cls.__module__.startswith("brainsched.")


def classes() -> dict[str, Any]:
    """Return the classes that a config may name; if two have the same name, the later one."""
    return {name_of(cls): cls for cls in _classes.values()}


def class_of(name: str) -> Any:
    """Return the class that a config names, with or without its module, or None."""
    if name in _classes:
        return _classes[name]
    found = [cls for cls in _classes.values() if name_of(cls) == name]
    if len(found) > 1:
        several = " or ".join(map(full_name, found))
        raise ValueError(f"{name!r} is the name of several classes: write {several}")
    return found[0] if found else None


def for_every_class(listener: Callable[[type], None]) -> None:
    """Call ``listener`` with every scheduler class, present and future."""
    _listeners.append(listener)
    for cls in _classes.values():
        listener(cls)


@functools.cache
def parameters(cls: Any) -> tuple[str, ...]:
    """Return the names of the constructor's parameters, from which a scheduler is rebuilt.

    Raises
    ------
    TypeError
        If the class cannot be rebuilt from its arguments.
    """
    found = inspect.signature(cls).parameters
    for parameter in found.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(
                f"{cls.__name__} has no config, as its constructor takes {parameter}: name each "
                f"argument"
            )
    if "last_epoch" not in found:
        raise TypeError(f"{cls.__name__} has no config, as its constructor takes no last_epoch")
    return tuple(found)


def kept(scheduler: Any) -> dict[str, Any]:
    """Return the arguments that a scheduler was built with, by name.

    Raises
    ------
    TypeError
        If it does not keep one as an attribute of the same name.
    """
    cls: Any = type(scheduler)
    attributes = scheduler.__dict__
    for name in parameters(cls):
        if name not in attributes:
            raise TypeError(
                f"{cls.__name__} has no config, as it does not keep self.{name} = {name}"
            )
    return {name: attributes[name] for name in parameters(cls)} | {
        "last_epoch": scheduler._first_epoch
    }


def config(scheduler: Any) -> dict[str, Any]:
    """Return the class and the constructor's arguments of ``scheduler``, in JSON types."""
    plain = {name: _plain(name, value) for name, value in kept(scheduler).items()}
    return {"class": name_of(type(scheduler)), **plain}


class _Repr(reprlib.Repr):
    """Shortens long arguments, and shows a part of a composition as the call that made it."""

    def repr_FixedList(self, x: Any, level: int) -> str:
        return self.repr_list(x, level)

    def repr_FixedDict(self, x: Any, level: int) -> str:
        # repr_dict would sort the names, whose order is that of the param groups.
        shown = [f"{key!r}: {self.repr1(value, level)}" for key, value in x.items()]
        if len(shown) > self.maxdict:
            shown[self.maxdict :] = ["..."]
        return f"{{{', '.join(shown)}}}"

    def repr_instance(self, x: Any, level: int) -> str:
        return call(x) if hasattr(x, "formula") else super().repr_instance(x, level)


_KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
_NO_DEFAULT = inspect.Parameter.empty


def call(scheduler: Any, **replaced: str) -> str:
    """Return the call that makes a scheduler, as text; ``last_epoch`` only where it is given.

    A keyword-only argument is left out where it has its default, as in most calls.
    """
    attributes, shown = scheduler.__dict__, {}
    for name, parameter in inspect.signature(type(scheduler)).parameters.items():
        if name == "last_epoch" or name not in attributes:  # a class without a config has a repr
            continue
        value = attributes[name]
        default = parameter.default if parameter.kind is _KEYWORD_ONLY else _NO_DEFAULT
        if not (value is default or (type(value) is type(default) and value == default)):
            shown[name] = _Repr().repr(value)
    arguments = [f"{name}={text}" for name, text in {**shown, **replaced}.items()]
    return f"{type(scheduler).__name__}({', '.join(arguments)})"


def differences(saved: Any, present: Mapping[str, Any]) -> list[str]:
    """Return the names of the arguments that differ, except ``last_epoch``.

    An argument that ``saved`` lacks counts as its default: the class did not have it when it was
    saved.
    """
    missing = [name for name in present if name not in saved]
    saved = {**saved, **_defaults(present.get("class", ""), missing)}
    names = [*present, *(name for name in saved if name not in present)]
    return [
        str(name)
        for name in names
        if name != "last_epoch" and not _same(saved.get(name), present.get(name))
    ]


def _defaults(name: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Return the defaults of those arguments of the named class that have one."""
    cls = classes().get(name)
    found = {} if cls is None else inspect.signature(cls).parameters
    return {
        argument: _plain(argument, parameter.default)
        for argument, parameter in found.items()
        if argument in arguments and parameter.default is not inspect.Parameter.empty
    }


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, np.generic):  # first: np.float64 is a float, but YAML cannot write it
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, jax.core.Tracer):
        raise TypeError(f"{name} is traced, so the scheduler has no config")
    if hasattr(value, "config"):
        return value.config
    if callable(value):
        return f"{value.__module__}:{value.__qualname__}"
    if isinstance(value, np.ndarray | jax.Array):
        return np.asarray(value).tolist()
    if isinstance(value, Mapping):
        return {key: _plain(f"{name}[{key!r}]", entry) for key, entry in value.items()}
    if isinstance(value, Sequence):
        return [_plain(f"{name}[{i}]", entry) for i, entry in enumerate(value)]
    raise TypeError(f"{name} cannot be written in a config: {value!r}")


def as_list(value: Any) -> Any:
    """Turn a dict keyed '0', '1', ..., which some formats make of a list, back into a list."""
    if isinstance(value, Mapping) and set(value) == {str(i) for i in range(len(value))}:
        return [value[str(i)] for i in range(len(value))]
    return value


def _same(saved: Any, present: Any) -> bool:
    """Whether two parts of configs are equal, whatever types a file format made of them."""
    saved = as_list(saved)
    if isinstance(saved, np.ndarray | np.generic | jax.Array):
        saved = np.asarray(saved).tolist()
    if isinstance(present, Mapping):
        return isinstance(saved, Mapping) and not differences(saved, present)
    if isinstance(present, list):
        return (
            isinstance(saved, list)
            and len(saved) == len(present)
            and all(map(_same, saved, present))
        )
    if isinstance(present, float) and isinstance(saved, float | int):
        return same_number(saved, present)
    return bool(saved == present)


def same_number(saved: float, present: float) -> bool:
    """Whether two numbers are the same in float32, which some formats round to."""
    in_range = -1e300 < saved < 1e300  # 10**400 does not fit into a float
    return in_range and math.isclose(saved, present, rel_tol=np.finfo(np.float32).eps / 2)
