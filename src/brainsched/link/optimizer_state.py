"""Restoring an optimizer from its ``state_dict``: all is checked before anything is written."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from braintools.optim import OptaxOptimizer

from brainsched import checks


def load_state_dict(optimizer: OptaxOptimizer, state_dict: Mapping[str, Any]) -> None:
    """Restore what ``state_dict()`` gave, or what a file format made of it, or change nothing.

    The rates are restored too, unless a checkpoint of the scheduler has restored them.
    """
    if optimizer.opt_state is None:
        raise ValueError("register_trainable_weights must be called before load_state_dict")
    found = _like(optimizer.state_dict(), state_dict)
    steps = checks.epoch_number("state_dict['step_count']", np.asarray(found["step_count"]))
    groups = [found["param_groups"][str(i)] for i in range(len(optimizer.param_groups))]
    if not optimizer.lr_scheduler.has_restored_rates:  # the last check: it raises or writes
        optimizer.lr_scheduler.current_lrs.value = [group["lr"] for group in groups]
    optimizer.step_count.value = steps
    optimizer.opt_state.value = found["opt_state"]
    for i, moments in enumerate(optimizer.param_groups_opt_states):
        moments.value = found["param_groups_opt_states"][str(i)]


def _like(template: Any, saved: Any) -> Any:
    """Return ``saved`` in the structure of ``template``, by the names on the way to each leaf.

    It does not matter whether a file format kept tuples or turned them into lists or dicts.
    """
    name = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
    found, expected = (
        {name(keys): leaf for keys, leaf in jax.tree.leaves_with_path(tree)}
        for tree in (saved, template)
    )
    for path in sorted(expected.keys() ^ found.keys()):
        which = "no entry" if path in expected else "an unknown entry"
        raise ValueError(
            f"state_dict has {which} {path!r}: build the optimizer like the saved one, and "
            f"add the same param groups first"
        )
    leaves = [_leaf(path, leaf, found[path]) for path, leaf in expected.items()]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _leaf(path: str, leaf: Any, saved: Any) -> Any:
    """Return ``saved``, which must be of the same shape and kind as ``leaf``; a name, equal."""
    new, old = (x if isinstance(x, jax.Array) else np.asarray(x) for x in (saved, leaf))
    fits = np.can_cast(new.dtype, old.dtype, "same_kind")
    if new.shape != old.shape or not fits or (isinstance(leaf, str) and saved != leaf):
        expected = repr(leaf) if isinstance(leaf, str) else f"{old.dtype}{list(old.shape)}"
        raise ValueError(f"state_dict has {checks.shown(saved)} at {path!r}, expected {expected}")
    if isinstance(leaf, jax.Array):
        return jnp.asarray(new, old.dtype)
    if new.shape == () and not isinstance(leaf, str):
        checks.number(f"state_dict's {path!r}", np.asarray(new))
    return new
