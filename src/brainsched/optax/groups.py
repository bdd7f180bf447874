"""Which param group a parameter is in: patterns of the paths in a tree of parameters.

A path is the keys on the way to a parameter, joined by slashes: ``'body/layers/0/kernel'``. It is
the same for the parameters and for their gradients, whatever they are wrapped in.
"""

import fnmatch
import reprlib
import sys
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np

from brainsched import checks

# A group, by its number or its name, or one for each entry of a parameter's first axis.
Group: TypeAlias = int | str | Sequence[int | str]
Groups: TypeAlias = Callable[[str], Group] | Mapping[str, Group]

# The path of each array in a tree, and its group; an array of them where its first axis has many.
Assigned: TypeAlias = list[tuple[str, int | np.ndarray]]

_ALLOW = "If that is intended, as for one part of the parameters, pass allow_unused=True"


def group_number(what: str, value: Any, names: tuple[str, ...]) -> int:
    """Return the number of the group that ``value`` is the number or the name of."""
    if isinstance(value, str):
        group = names.index(value) if value in names else -1
    else:
        group = checks.integer(what, value)
    if not 0 <= group < len(names):
        raise ValueError(
            f"{what} must be one of the {len(names)} param groups of the schedule, "
            f"{reprlib.repr(names)}, got {value!r}"
        )
    return group


class Assignment:
    """From a parameter's place in its tree to its param group, one of ``names``."""

    def __init__(self, groups: Groups, names: tuple[str, ...]) -> None:
        self._names = names
        self._function = None if isinstance(groups, Mapping) else groups
        self._patterns = {
            pattern: self._numbers(f"groups[{pattern!r}]", group)
            for pattern, group in (groups.items() if isinstance(groups, Mapping) else ())
        }

    def of(self, tree: Any) -> Assigned:
        """Return the path and the group of each array in ``tree``."""
        found: Assigned = []
        for keys, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_variable)[0]:
            path = "/".join(part for key in keys for part in _parts(key))
            group = self._group(path)
            found += [
                (path, _along(path, group, np.shape(array))) for array in jax.tree.leaves(leaf)
            ]
        return found

    def check(self, found: Assigned) -> None:
        """Raise a ValueError if a pattern claims no parameter, or a group has none."""
        paths = sorted({path for path, _ in found})
        claiming = set(map(self._claiming, paths))
        for pattern in self._patterns:
            if pattern not in claiming:
                raise ValueError(
                    f"groups has the pattern {pattern!r}, which claims none of the parameters "
                    f"{reprlib.repr(paths)}: it matches none, or an earlier one does. {_ALLOW}"
                )
        used = {number for _, group in found for number in np.ravel(group).tolist()}
        for number, name in enumerate(self._names):
            if number not in used:
                raise ValueError(f"no parameter is in param group {name!r}. {_ALLOW}")

    def _numbers(self, what: str, value: Any) -> int | list[int]:
        if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
            return group_number(what, value, self._names)
        return [group_number(f"{what}[{i}]", one, self._names) for i, one in enumerate(value)]

    def _claiming(self, path: str) -> str | None:
        """Return the pattern that claims a path: the first one that matches, if any."""
        for pattern in self._patterns:
            # A bracket stands for itself: it occurs in the names of parameters.
            if fnmatch.fnmatchcase(path, pattern.replace("[", "[[]")):
                return pattern
        return None

    def _group(self, path: str) -> int | list[int]:
        pattern = self._claiming(path)
        if pattern is not None:
            return self._patterns[pattern]
        found = None if self._function is None else self._function(path)
        if found is None:
            raise ValueError(
                f"no group claims the parameter {path!r}: groups must cover every one. A last "
                f"pattern '*' claims the rest"
            )
        return self._numbers(f"the group of {path!r}", found)


def checksum(found: Assigned) -> np.ndarray:
    """Return a number that tells which group each parameter is in."""
    listed = sorted((path, np.ravel(group).tolist()) for path, group in found)
    return np.asarray(zlib.crc32(repr(listed).encode()), np.uint32)


def _along(path: str, group: int | list[int], shape: tuple[int, ...]) -> int | np.ndarray:
    if isinstance(group, int):
        return group
    if shape[:1] != (len(group),):
        raise ValueError(
            f"groups gives the parameter {path!r} a group for each of {len(group)} entries of its "
            f"first axis, but its shape is {shape}"
        )
    return np.reshape(group, (-1, *(1 for _ in shape[1:])))


def _parts(key: Any) -> list[str]:
    parts = getattr(key, "key", None)
    if isinstance(parts, tuple):  # as brainstate's model.states() has them
        return [name for part in parts for name in _parts(jax.tree_util.DictKey(part))]
    return [jax.tree_util.keystr((key,), simple=True)]


def _is_variable(value: Any) -> bool:
    # nnx.Optimizer initialises with parameters in their Variables, which have their array under a
    # key of its own, and updates without them. One can only be there once Flax is imported.
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(value, nnx.Variable)
