"""Divisions of a formula that compiled code rounds as NumPy does.

XLA turns a division by a constant into a product with its reciprocal, which is off in the last
place: ``49 * (1 / 49)`` is below 1, so that ``floor(epoch / 49)`` would change an epoch late in
compiled code alone. Whoever writes a formula writes ``/`` and need not know; so the program that a
formula is traced to is looked through, and the divisor of such a division is made to look as if it
were no constant.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr, Literal


def truly_divided(function: Callable[..., Any]) -> Callable[..., jax.Array]:
    """Return ``function``, of arrays to one array, with divisions that are rounded once."""

    def divided(*arguments: Any) -> jax.Array:
        traced = jax.make_jaxpr(function)(*arguments)
        if not _divides(traced.jaxpr, set(traced.jaxpr.invars)):
            return function(*arguments)
        varying = [True] * len(traced.jaxpr.invars)
        leaves = jax.tree.leaves(arguments)
        (result,) = _evaluated(traced.jaxpr, traced.consts, leaves, varying)
        return result

    return divided


def _inner(equation: Any) -> Any:
    """Return the program of a function that is called, if the equation is a call."""
    return equation.params.get("jaxpr") if equation.primitive.name in ("jit", "pjit") else None


def _divides(jaxpr: Jaxpr, varying: set[Any]) -> bool:
    """Whether a float is divided by what is the same for all of the variables in ``varying``."""
    varying = set(varying)
    for equation in jaxpr.eqns:
        varies = [not isinstance(atom, Literal) and atom in varying for atom in equation.invars]
        inner = _inner(equation)
        if inner is not None:
            pairs = zip(inner.jaxpr.invars, varies, strict=True)
            if _divides(inner.jaxpr, {variable for variable, yes in pairs if yes}):
                return True
        elif _is_division(equation, varies):
            return True
        if any(varies):
            varying.update(equation.outvars)
    return False


def _is_division(equation: Any, varies: list[bool]) -> bool:
    if equation.primitive.name != "div" or varies != [True, False]:
        return False
    return bool(jnp.issubdtype(equation.outvars[0].aval.dtype, jnp.floating))


def _evaluated(
    jaxpr: Jaxpr, consts: Sequence[Any], arguments: Sequence[Any], varies: Sequence[bool]
) -> list[Any]:
    """Run a program, of which the arguments that vary are no constants of the compiler's."""
    values = dict(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, arguments, strict=True))
    varying = {variable for variable, yes in zip(jaxpr.invars, varies, strict=True) if yes}

    def value_of(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for equation in jaxpr.eqns:
        operands = list(map(value_of, equation.invars))
        vary = [not isinstance(atom, Literal) and atom in varying for atom in equation.invars]
        inner = _inner(equation)
        if inner is not None:
            results = _evaluated(inner.jaxpr, inner.consts, operands, vary)
        elif _is_division(equation, vary):
            results = [_quotient(*operands)]
        else:
            bound = equation.primitive.get_bind_params(equation.params)
            functions, parameters = bound if isinstance(bound, tuple) else ((), bound)  # jax < 0.10
            results = equation.primitive.bind(*functions, *operands, **parameters)
            results = results if equation.primitive.multiple_results else [results]
        values.update(zip(equation.outvars, results, strict=True))
        if any(vary):
            varying.update(equation.outvars)
    return list(map(value_of, jaxpr.outvars))


def _quotient(dividend: Any, divisor: Any) -> jax.Array:
    """Divide by what the dividend selects, which is no constant of the compiler's.

    The barrier keeps a dividend that is itself a constant from deciding that too early. Either
    alone was seen to fail (jax 0.10.2, on a CPU).
    """
    behind = jax.lax.optimization_barrier(dividend)
    is_number = behind == behind
    return jax.lax.div(dividend, jnp.where(is_number, divisor, jnp.ones_like(divisor)))
