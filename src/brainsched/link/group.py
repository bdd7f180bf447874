"""A param group of an optimizer with a scheduler, and what may become one."""

from collections.abc import Mapping
from typing import Any

import jax
from brainstate import State
from braintools.optim import OptaxOptimizer


class ScheduledGroup(dict[str, Any]):
    """A param group in which ``group['lr'] = x`` sets the applied rate, as in PyTorch."""

    given: Any = None
    """The ``lr=`` that it was added with."""

    def __setitem__(self, key: str, value: Any) -> None:
        if key == "lr":
            self["lr"].value = value
        else:
            super().__setitem__(key, value)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set each item."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value


def _flatten(group: ScheduledGroup) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
    keys = tuple(sorted(group))
    return [(jax.tree_util.DictKey(key), group[key]) for key in keys], keys


def _unflatten(keys: tuple[str, ...], values: Any) -> Any:
    return dict(zip(keys, values, strict=True))  # what JAX makes from a group is not a group


jax.tree_util.register_pytree_with_keys(ScheduledGroup, _flatten, _unflatten)


def check_params(optimizer: OptaxOptimizer, params: Any) -> None:
    """Raise unless ``params`` is a dictionary of parameters that are in no other group."""
    states = list(params.values()) if isinstance(params, Mapping) else []
    if not states or not all(isinstance(state, State) for state in states):
        raise TypeError(
            f"params must be a dictionary of one or more States, as "
            f"model.states(brainstate.ParamState) is, got {params!r}"
        )
    groups = [group["params"] for group in optimizer.param_groups]
    taken = {key: state for group in groups for key, state in group.items()}
    ids = set(map(id, taken.values()))
    for key, state in params.items():
        if key in taken or id(state) in ids:
            raise ValueError(f"params[{key!r}] is already in another param group")
    jax.tree.structure({**taken, **params})  # raises unless the keys can be sorted together
