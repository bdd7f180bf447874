"""Restoring an optimizer from its ``state_dict``: all is checked before anything is written."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from braintools.optim import OptaxOptimizer

from brainsched import checks
from brainsched.link import upstream
from brainsched.types import largest_epoch

_NUMBERS = np.ndarray | np.generic | jax.Array | int | float


def load(optimizer: OptaxOptimizer, state_dict: Any) -> None:
    """Restore what ``optimizer.state_dict()`` returned, or what a file format made of it."""
    if optimizer.opt_state is None:
        raise ValueError("register_trainable_weights must be called before load_state_dict")
    found = _like(optimizer.state_dict(), state_dict)
    steps = checks.epoch_number("state_dict['step_count']", np.asarray(found["step_count"]))
    rates, moments = [], [found["opt_state"]]
    for i in range(len(optimizer.param_groups)):
        rates.append(np.asarray(found["param_groups"][str(i)]["lr"]))
        checks.number(f"state_dict's rate of param group {i}", rates[i])
    for i in range(1, len(rates)):
        moments.append(found["param_groups_opt_states"][str(i - 1)])
    # All is checked: from here on nothing raises.
    optimizer.step_count.value = steps
    states = [optimizer.opt_state, *optimizer.param_groups_opt_states]
    for state, value in zip(states, moments, strict=True):
        state.value = value
    if not optimizer.lr_scheduler.has_restored_rates:
        upstream.applied_rates(optimizer).value = rates


def _like(template: Any, saved: Any) -> Any:
    """Return ``saved`` in the structure of ``template``, by the names on the way to each leaf.

    It does not matter whether a file format kept tuples or turned them into lists or dicts.
    """
    found = {_path(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(saved)}
    places, structure = jax.tree_util.tree_flatten_with_path(template)
    expected = {_path(keys): leaf for keys, leaf in places}
    for path in sorted(expected.keys() ^ found.keys()):
        which = "no entry" if path in expected else "an unknown entry"
        raise ValueError(
            f"state_dict has {which} {path!r}: build the optimizer like the saved one, and "
            f"add the same param groups first"
        )
    leaves = [_leaf(path, leaf, found[path]) for path, leaf in expected.items()]
    return jax.tree.unflatten(structure, leaves)


def _leaf(path: str, leaf: Any, saved: Any) -> Any:
    if isinstance(leaf, str):
        if saved != leaf:
            raise ValueError(f"state_dict has {saved!r} at {path!r}, expected {leaf!r}")
        return leaf
    if isinstance(saved, bool) or not isinstance(saved, _NUMBERS):
        raise TypeError(f"state_dict has {checks.shown(saved)} at {path!r}, expected numbers")
    if isinstance(saved, int | float):
        checks.number(f"state_dict's {path!r}", saved, largest=largest_epoch())
    if isinstance(leaf, int | float):
        checks.number(f"state_dict's {path!r}", np.asarray(saved))
    dtype, shape = jnp.result_type(leaf), np.shape(leaf)
    given = jnp.result_type(saved)
    fits = np.can_cast(given, dtype, "same_kind") and (given.kind == "b") == (dtype.kind == "b")
    if np.shape(saved) != shape or not fits:
        raise ValueError(
            f"state_dict has {given}{list(np.shape(saved))} at {path!r}, expected "
            f"{dtype}{list(shape)}"
        )
    return jnp.asarray(saved, dtype) if isinstance(leaf, jax.Array) else np.asarray(saved)


def _path(keys: tuple[Any, ...]) -> str:
    """Return the names on the way to a leaf, whether they are keys, fields or indices."""
    return "/".join(jax.tree_util.keystr((key,), simple=True) for key in keys)
