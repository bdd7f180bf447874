"""Whether a State that is read or written now is tracked, and what to say where it is not."""

from typing import Any

import jax
from brainstate import State, TraceContextError

from brainsched import _upstream


def require(state: State, what: str) -> None:
    """Raise under a plain JAX transformation: it would drop what is written to ``state``."""
    if _upstream.inside_brainstate_transform():
        return
    if not _upstream.created_in_current_trace(state):
        raise TraceContextError(
            f"{what} ran under a plain JAX transformation (jax.jit, jax.vmap, jax.grad, "
            f"jax.lax.scan, ...), which cannot track the scheduler's States: the schedule "
            f"would silently stand still. Use brainstate.transform.jit, vmap, grad, for_loop "
            f"or scan instead. In pure JAX, optax or Flax code, where no State is tracked, "
            f"make the rate a function of a step count that optax or you carry: "
            f"scheduler.as_optax(), brainsched.scale_by_scheduler, scheduler.lr_at(count)"
        )


def known(value: Any, what: str, instead: str) -> Any:
    """Return a value that Python may look at; raise in compiled code, which does not know it."""
    if isinstance(value, jax.core.Tracer):
        raise TraceContextError(
            f"{what} is an int, which compiled code does not know yet: use {instead} there, and "
            f"this one outside"
        )
    return value
