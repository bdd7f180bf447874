"""Functions of the user's among the arguments of a schedule."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from brainsched import checks
from brainsched.types import Array

Multiplier = Callable[[Any], Any]


def evaluate(
    name: str, function: Multiplier, counts: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """Return what a user's function of one number gives for each of ``counts``.

    JAX evaluates it on the host, too: its author writes for one number, and for compiled code.
    """

    def result(count: jax.Array) -> jax.Array:
        value = jnp.asarray(function(count))
        return jnp.asarray(checks.rate(f"the result of {name}", value), np.float64)

    return jax.vmap(result)(jnp.asarray(counts).ravel()).reshape(counts.shape)
