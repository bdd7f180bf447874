"""A param group of an optimizer with a scheduler, and what may become one."""

from collections.abc import Mapping
from typing import Any

import jax
from brainstate import State
from braintools.optim import OptaxOptimizer


@jax.tree_util.register_pytree_with_keys_class
class ScheduledGroup(dict[str, Any]):
    """A param group, in which ``group['lr'] = x``, as in PyTorch, sets the rate that is applied.

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

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
        """Flatten like a dict."""
        keys = tuple(sorted(self))
        return [(jax.tree_util.DictKey(key), self[key]) for key in keys], keys

    @classmethod
    def tree_unflatten(cls, keys: tuple[str, ...], values: Any) -> dict[str, Any]:
        """Return a plain dict: what is made from a group is no group of an optimizer."""
        return dict(zip(keys, values, strict=True))


def check_params(optimizer: OptaxOptimizer, params: Any) -> None:
    """Raise if ``params`` is not a dictionary of parameters that no other group has."""
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
            raise ValueError(f"params[{key!r}] is in another param group already")
        if key in taken:
            raise ValueError(f"params[{key!r}] has the key of a parameter of another param group")
