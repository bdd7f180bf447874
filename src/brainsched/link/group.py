"""A param group of an optimizer that follows a scheduler of ours, and what may become one."""

from collections.abc import Mapping
from typing import Any

import jax
from brainstate import State
from braintools.optim import OptaxOptimizer

from brainsched.link import upstream


@jax.tree_util.register_pytree_with_keys_class
class ScheduledGroup(dict[str, Any]):
    """A param group, in which ``group['lr'] = x``, as in PyTorch, sets the rate that is applied.

    Parameters
    ----------
    content : mapping
        The param group of braintools.
    given_lr : float, scalar array or None
        The ``lr=`` that it was added with.
    """

    def __init__(self, content: Mapping[str, Any], given_lr: Any) -> None:
        super().__init__(content)
        self.given_lr = given_lr

    def __setitem__(self, key: str, value: Any) -> None:
        if key == "lr" and value is not self["lr"]:
            self["lr"].value = value
        else:
            super().__setitem__(key, value)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set each item."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Any]], tuple[str, ...]]:
        """Flatten like a dict."""
        keys = tuple(sorted(self))
        return [(jax.tree_util.DictKey(key), self[key]) for key in keys], keys

    @classmethod
    def tree_unflatten(cls, keys: tuple[str, ...], values: Any) -> dict[str, Any]:
        """Return a plain dict: what is made from a group is no group of an optimizer."""
        return dict(zip(keys, values, strict=True))


def check_params(optimizer: OptaxOptimizer, params: Any) -> None:
    """Raise if the gradients of ``params`` could not be told apart from those of other groups."""
    if not isinstance(params, Mapping):
        raise TypeError(
            f"params must be a dictionary of States, as model.states(brainstate.ParamState) is, "
            f"got {type(params).__name__}"
        )
    if not params:
        raise ValueError(
            "params has no parameter, so that the group would train nothing: was it selected by "
            "keys that the model does not have?"
        )
    for key, value in params.items():
        if not isinstance(value, State | Mapping):
            raise TypeError(
                f"params[{key!r}] must be a State, got {type(value).__name__}: give the States "
                f"alone, as model.states(brainstate.ParamState) does, and what else a group has "
                f"beside them, add_param_group(params, lr=0.1)"
            )
    if not optimizer.param_groups:
        return  # braintools says that weights must be registered first
    taken = {
        key: group for group, entry in enumerate(optimizer.param_groups) for key in entry["params"]
    }
    try:
        sorted([*taken, *params])
    except TypeError as error:
        raise ValueError(
            f"the keys of params cannot be sorted among those of the other groups, as JAX must: "
            f"give all keys one form, as model.states(brainstate.ParamState) does ({error})"
        ) from error
    nested = [key for key, value in optimizer.param_groups[0]["params"].items() if _is_dict(value)]
    for key, value in params.items():
        if _is_dict(value) or nested:
            where = f"params[{key!r}]" if _is_dict(value) else f"the registered {nested[0]!r}"
            raise ValueError(
                f"{where} is a dictionary of parameters, and braintools would train a group of "
                f"such at the first group's rate: give flat dictionaries to both "
                f"register_trainable_weights and add_param_group, with tuples for keys, as "
                f"model.states(brainstate.ParamState) does"
            )
        if key in taken and optimizer.param_groups[taken[key]]["params"][key] is not value:
            raise ValueError(
                f"params[{key!r}] has the key of another parameter, of param group {taken[key]}: "
                f"give it a key of its own, as its gradient has"
            )
        if id(value) in upstream.registered_ids(optimizer):
            raise ValueError(
                f"params[{key!r}] is in another param group already: register the others alone, "
                f"{{key: state for key, state in model.states(brainstate.ParamState).items() if "
                f"key not in params}}"
            )


def check_gradients(optimizer: OptaxOptimizer, grads: Any = None, *_: Any, **__: Any) -> None:
    """Raise unless ``grads`` has the gradient of each parameter, as braintools 0.3.0 needs it."""
    if not isinstance(grads, Mapping):
        raise TypeError(
            f"grads must be a dictionary, as brainstate.transform.grad(loss, states)() returns, "
            f"got {type(grads).__name__}. With return_value=True it returns the gradients first, "
            f"and then the loss"
        )
    missing = [key for key in optimizer.param_states.to_pytree() if key not in grads]
    if missing:
        raise ValueError(
            f"grads has no gradient for {missing[0]!r}, and {len(missing)} of "
            f"{len(optimizer.param_states.to_pytree())} are missing: take it for all that was "
            f"registered or added, under the same keys, as brainstate.transform.grad(loss, "
            f"states)() does"
        )


def _is_dict(value: Any) -> bool:
    return isinstance(value, Mapping)
