"""Whether a State that is read or written now is tracked, and what to say where it is not."""

from typing import Any

import jax
from brainstate import State, TraceContextError

from brainsched.link import upstream


def require(state: State, what: str) -> None:
    """Raise where what is written to ``state`` would be dropped, and what is read stays."""
    if upstream.is_tracked(state):
        return
    if upstream.inside_a_trace() and not state.stack_level:
        raise TraceContextError(
            f"{what} ran under a plain JAX transformation (jax.jit, jax.vmap, jax.grad, "
            f"jax.lax.scan, ...), which cannot track the scheduler's States: the schedule "
            f"would silently stand still. Use brainstate.transform.jit, vmap, grad, for_loop "
            f"or scan instead. In pure JAX, optax or Flax code, where no State is tracked, "
            f"make the rate a function of a step count that optax or you carry: "
            f"scheduler.as_optax(), brainsched.scale_by_scheduler, scheduler.lr_at(count)"
        )
    raise TraceContextError(
        f"{what} ran where the scheduler's States are not tracked: they were created in a function "
        f"that JAX or brainstate traced (jit, vmap, for_loop, ...), and belong to it alone. Build "
        f"scheduler and optimizer outside, and let the function use them; within the function "
        f"that builds them, use brainstate.transform.for_loop in the place of jax.lax.scan"
    )


def require_one_trace(*states: State) -> None:
    """Raise unless all ``states`` were created where this runs: a link made here would outlive it.

    A compiled program would neither make it again nor know of it.
    """
    for state in states:
        if not upstream.created_in_current_trace(state):
            if not upstream.inside_a_trace():
                require(state, "attaching a scheduler, or adding a param group,")
            raise TraceContextError(
                "a scheduler cannot take on an optimizer or a param group while a function is "
                "traced: the compiled program would not know of it. Attach, and add the group, "
                "outside, before the training step is called; the next call traces again, once"
            )


def known(value: Any, what: str, instead: str, kind: str = "an int") -> Any:
    """Return a value that Python may look at; raise in compiled code, which does not know it."""
    if isinstance(value, jax.core.Tracer):
        raise TraceContextError(
            f"{what} is {kind}, which compiled code does not know yet: use {instead} there, and "
            f"this one outside"
        )
    return value
