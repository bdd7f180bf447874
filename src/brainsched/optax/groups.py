"""Which param group a parameter is in: patterns of the paths in a tree of parameters.

A path is the keys on the way to a parameter, joined by slashes: ``'body/layers/0/kernel'``. It is
the same for the parameters and for their gradients, whatever they are wrapped in.
"""

import fnmatch
import reprlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import numpy as np

from brainsched import checks

# A group, by its number or its name, or one for each entry of a parameter's first axis.
Group: TypeAlias = int | str | Sequence[int | str]
Groups: TypeAlias = Callable[[str], Group] | Mapping[str, Group]


class GroupNumbers:
    """The param groups that a schedule has rates for, by number and by name.

    Parameters
    ----------
    number : int
        How many there are.
    names : tuple of str
        The names of the first ones, where they have any.
    owner : str
        Whose groups they are, for messages.
    """

    def __init__(self, number: int, names: tuple[str, ...], owner: str) -> None:
        self.names = (*names, *(str(group) for group in range(len(names), number)))
        self._named = names
        self._owner = owner

    def __len__(self) -> int:
        return len(self.names)

    def one(self, what: str, value: Any, hint: str = "") -> int:
        """Return the number of the group that ``value`` is the number or the name of."""
        if isinstance(value, str):
            if value in self._named:
                return self._named.index(value)
            known = f"which are {list(self._named)}" if self._named else "of which it gives none"
            number = "0" if len(self) == 1 else f"a number from 0 to {len(self) - 1}"
            cure = "" if self._named else f": use {number}, or base_lr={{{value!r}: ...}}"
            raise ValueError(
                f"{what} must be an integer, or a name that base_lr gives to a param group, "
                f"{known}, got {value!r}{cure}"
            )
        group = checks.integer(what, value)
        if not 0 <= group < len(self):
            raise ValueError(
                f"{what} must be from 0 to {len(self) - 1}, got {group}: {self._owner} has the "
                f"rates of {len(self)} param groups, one for each entry of base_lr, or for each "
                f"of its columns{hint}"
            )
        return group

    def one_or_stacked(self, what: str, value: Any) -> int | tuple[int, ...]:
        """Return the group, or those of the entries of a first axis."""
        if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
            return self.one(what, value)
        if not len(value):
            raise ValueError(f"{what} must have a group for each entry of the first axis, got none")
        return tuple(self.one(f"{what}[{i}]", entry) for i, entry in enumerate(value))

    def shown(self, group: int) -> str:
        """Return the number of a group, and its name where it has one."""
        if group < len(self._named):
            return f"{group} ({self.names[group]!r})"
        named = f" (a column beyond the {len(self._named)} names in base_lr)" if self._named else ""
        return f"{group}{named}"


class Assignment:
    """From a parameter's place in its tree to its param group.

    Parameters
    ----------
    groups : callable or mapping
        As in :func:`brainsched.scale_by_scheduler`.
    numbers : GroupNumbers
        The groups that there are.
    """

    def __init__(self, groups: Groups, numbers: GroupNumbers) -> None:
        self._numbers = numbers
        self._patterns: dict[str, int | tuple[int, ...]] = {}
        self._function: Callable[[str], Any] | None = None
        if isinstance(groups, Mapping):
            for pattern, group in groups.items():
                if not isinstance(pattern, str):
                    raise TypeError(f"groups must have patterns of paths as keys, got {pattern!r}")
                self._patterns[pattern] = numbers.one_or_stacked(f"groups[{pattern!r}]", group)
        elif callable(groups):
            self._function = groups
        else:
            raise TypeError(
                f"groups must be a function from a parameter's path to its group, or a mapping "
                f"from patterns of paths, got {groups!r} ({type(groups).__name__})"
            )

    def map(self, function: Callable[[Any, Any], Any], tree: Any) -> Any:
        """Return the tree of ``function(parameter, group)``.

        ``group`` is a number; for a parameter whose first axis is of several groups, an array of
        numbers with as many axes as the parameter.
        """

        def mapped(keys: tuple[Any, ...], leaf: Any) -> Any:
            path = _path(keys)
            group = self._group(path)
            return jax.tree.map(lambda value: function(value, _along(path, value, group)), leaf)

        return jax.tree_util.tree_map_with_path(mapped, tree, is_leaf=_is_variable)

    def check(self, tree: Any, allow_unused: bool) -> None:
        """Raise a ValueError if a parameter of ``tree`` has no group, or cannot have it.

        Unless ``allow_unused``, also if a pattern claims no parameter, or a group has none.
        """
        used: dict[str, tuple[int, ...]] = {}
        for keys, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=_is_variable)[0]:
            path = _path(keys)
            group = self._group(path)
            jax.tree.map(lambda value, path=path, group=group: _along(path, value, group), leaf)
            used[path] = group if isinstance(group, tuple) else (group,)
        if allow_unused:
            return
        for pattern in self._patterns:
            self._check_that_it_claims_one(pattern, list(used))
        for group in sorted(set(range(len(self._numbers))).difference(*used.values())):
            raise ValueError(
                f"no parameter is in param group {self._numbers.shown(group)}: its rates would "
                f"play no part. {_ALLOW}"
            )

    def _check_that_it_claims_one(self, pattern: str, paths: Sequence[str]) -> None:
        matching = [path for path in paths if _matches(path, pattern)]
        if not matching:
            raise ValueError(
                f"groups has the pattern {pattern!r}, which matches no parameter: there are "
                f"{reprlib.repr(sorted(paths))}. {_ALLOW}"
            )
        claiming = [next(self._claiming(path)) for path in matching]
        if pattern not in claiming:
            raise ValueError(
                f"groups has the pattern {pattern!r}, which claims no parameter: {claiming[0]!r} "
                f"comes before it and claims {matching[0]!r}. The first pattern that matches "
                f"counts, so put the narrower one first. {_ALLOW}"
            )

    def _claiming(self, path: str) -> Iterator[str]:
        return (pattern for pattern in self._patterns if _matches(path, pattern))

    def _group(self, path: str) -> int | tuple[int, ...]:
        found: Any
        if self._function is None:
            pattern = next(self._claiming(path), None)
            found = None if pattern is None else self._patterns[pattern]
        else:
            found = self._function(path)
        if found is None:
            raise ValueError(
                f"no group claims the parameter {path!r}: groups must cover every one. A last "
                f"pattern '*' claims the rest"
            )
        return self._numbers.one_or_stacked(f"the group of {path!r}", found)


_ALLOW = "Where that is meant, as for a part of the parameters, give allow_unused=True"


def _along(path: str, value: Any, group: int | tuple[int, ...]) -> int | np.ndarray:
    if not isinstance(group, tuple):
        return group
    shape = np.shape(value)
    if shape[:1] != (len(group),):
        raise ValueError(
            f"groups gives the parameter {path!r} a group for each of {len(group)} entries of its "
            f"first axis, but its shape is {shape}"
        )
    return np.reshape(group, (-1, *(1 for _ in shape[1:])))


def _matches(path: str, pattern: str) -> bool:
    # A bracket stands for itself: it occurs in the names of parameters.
    return fnmatch.fnmatchcase(path, pattern.replace("[", "[[]"))


def _path(keys: tuple[Any, ...]) -> str:
    return "/".join(part for key in keys for part in _parts(key))


def _parts(key: Any) -> Iterator[str]:
    if isinstance(key, jax.tree_util.DictKey):
        yield from _names(key.key)
    else:
        yield jax.tree_util.keystr((key,), simple=True)


def _names(key: Any) -> Iterator[str]:
    if isinstance(key, tuple):  # as brainstate's model.states() has them
        for part in key:
            yield from _names(part)
    else:
        yield str(key)


def _is_variable(value: Any) -> bool:
    """Whether it is a Variable of Flax NNX, which has its array under a key of its own.

    ``nnx.Optimizer`` initialises with parameters in their Variables, and updates without them. One
    can only be there once Flax is imported.
    """
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(value, nnx.Variable)
