"""Importing brainstate turns 64-bit types off; imported first, this leaves them on.

A program of JAX or Flax alone that has them on would otherwise lose them.
"""

import jax

_enabled = jax.config.jax_enable_x64  # type: ignore[attr-defined]

import brainstate  # noqa: E402, F401

if _enabled:
    jax.config.update("jax_enable_x64", True)
