"""A param group of an optimizer with a scheduler, and what may become one."""

from collections.abc import Mapping
from typing import Any

import jax
from brainstate import State
from braintools.optim import OptaxOptimizer


@jax.tree_util.register_pytree_with_keys_class
class ScheduledGroup(dict[str, Any]):
    """A param group in which ``group['lr'] = x`` sets the applied rate, as in PyTorch.

    ``given`` is the ``lr=`` that it was added with, or None.
    """

    def __init__(self, content: Mapping[str, Any], given: Any) -> None:
        super().__init__(content)
        self.given = given

    def __setitem__(self, key: str, value: Any) -> None:
        if key == "lr":
            self["lr"].value = value
        else:
            super().__setitem__(key, value)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set each item."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def __ior__(self, other: Any) -> "ScheduledGroup":  # type: ignore[override, misc]
        self.update(other)
        return self

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
        """Flatten like a dict."""
        keys = tuple(sorted(self))
        return [(jax.tree_util.DictKey(key), self[key]) for key in keys], keys

    @classmethod
    def tree_unflatten(cls, keys: tuple[str, ...], values: Any) -> dict[str, Any]:
        """Return a plain dict: what JAX makes from a group is not a group."""
        return dict(zip(keys, values, strict=True))


def given_rate(group: Any) -> Any:
    """Return the ``lr=`` that a group was added with, or None."""
    if isinstance(group, ScheduledGroup):
        return group.given
    return None if isinstance(group["lr"], State) else group["lr"]


def check_params(optimizer: OptaxOptimizer, params: Any) -> None:
    """Raise unless ``params`` is a dictionary of parameters that are in no other group."""
    if not isinstance(params, Mapping) or not params:
        raise TypeError(
            f"params must be a dictionary with at least one State, as "
            f"model.states(brainstate.ParamState) is, got {params!r}"
        )
    taken = {
        key: state for group in optimizer.param_groups for key, state in group["params"].items()
    }
    for key, state in params.items():
        if not isinstance(state, State):
            raise TypeError(f"params[{key!r}] must be a State, got {type(state).__name__}")
        if id(state) in optimizer.param_states.seen_ids:
            raise ValueError(f"params[{key!r}] is already in another param group")
        if key in taken:
            raise ValueError(f"params[{key!r}] has the key of a parameter of another param group")
    if len(set(map(id, params.values()))) < len(params):
        raise ValueError("params has a State twice")
    jax.tree.structure({**taken, **params})  # raises unless the keys can be sorted together
