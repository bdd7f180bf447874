"""The learning-rate range test: train at rising rates, and see at which of them the loss falls.

The whole test is one compiled loop over copies. A training step of brainstate first becomes a pure
function of the values of its States, which the loop carries; a step of optax already is one.
"""

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from brainstate import State
from brainstate.transform import StatefulFunction
from braintools.optim import OptaxOptimizer
from jax import lax
from jax.interpreters.partial_eval import dce_jaxpr
from jaxtyping import Float

from brainsched import checks
from brainsched.core.scheduler import LRScheduler
from brainsched.range_test.curve import RangeTest
from brainsched.types import Array, rate_dtype


def lr_range_test(
    train_step: Callable[[Any], Any],
    batches: Iterable[Any],
    optimizer: OptaxOptimizer,
    *,
    start: float = 1e-7,
    end: float = 10.0,
    steps: int = 100,
    smoothing: float = 0.98,
    divergence: float = 4.0,
) -> RangeTest:
    """Train at rates that rise from ``start`` to ``end``, and leave every State as it was.

    Step ``i`` trains at ``start * (end / start) ** (i / (steps - 1))``. The test ends early if the
    loss is not finite, or if the smoothed loss exceeds ``divergence`` times its lowest value. For
    pure functions, as with Flax, use :func:`lr_range_test_optax`.

    Parameters
    ----------
    train_step : callable
        Maps a batch to the loss, a scalar, and takes a step of ``optimizer``: what you would
        compile with ``brainstate.transform.jit``, compiled or not.
    batches : iterable
        Arrays or trees of arrays, all of the same shapes. The test takes the first ``steps``, and
        starts over if there are fewer.
    optimizer : OptaxOptimizer
        Its first param group gets the rates of the test. Other groups keep the ratio of their
        base rates to it.
    start, end : float
        The first and the last rate.
    steps : int
        Number of steps, at least 10.
    smoothing : float
        Weight of the past in the moving average of the losses, in [0, 1).
    divergence : float
        Above 1. If the lowest value is negative, its absolute value counts.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; if ``train_step`` does not return the loss alone, or
        does not train at the rate of ``optimizer``; if the first loss is not finite.

    References
    ----------
    Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, section 3.3. The
    defaults are those of ``fastai.callback.schedule.lr_find``.

    Examples
    --------
    >>> import brainsched, brainstate, braintools, jax.numpy as jnp
    >>> weight = brainstate.ParamState(jnp.ones(()))
    >>> optimizer = braintools.optim.SGD(lr=1e-3)
    >>> _ = optimizer.register_trainable_weights({"weight": weight})
    >>> def train_step(batch):
    ...     gradients, loss = brainstate.transform.grad(
    ...         lambda: (batch * weight.value) ** 2, {"weight": weight}, return_value=True
    ...     )()
    ...     optimizer.step(gradients)
    ...     return loss
    >>> curve = brainsched.lr_range_test(train_step, [jnp.ones(())], optimizer)
    >>> print(f"{curve.suggest().rate:.3f}")  # above 1, this loss diverges
    0.066
    >>> float(weight.value), int(optimizer.step_count.value)
    (1.0, 0)
    """
    rates, stacked = _inputs(start, end, steps, batches)
    scheduler = optimizer.lr_scheduler
    first = scheduler.current_lrs
    others = [group["lr"] for group in optimizer.param_groups[1:]]
    if not all(isinstance(rate, State) for rate in others):  # braintools 0.3.0 and 0.4.0
        raise ValueError(
            "braintools fixes the rate of a param group added with lr=: use a brainsched scheduler"
        )
    bases = [first.value[0], *(rate.value for rate in others)]
    if isinstance(scheduler, LRScheduler):
        bases = scheduler.base_lrs
    shares = [float(base) / float(bases[0]) for base in bases[1 : len(others) + 1]]

    def step_at(rate: Array, batch: Any) -> Any:
        first.value = [rate, *first.value[1:]]
        for other, share in zip(others, shares, strict=True):
            other.value = rate * share
        return train_step(batch)

    pure = StatefulFunction(step_at, return_only_write=False)
    states = pure.get_states(rates[0], jax.tree.map(lambda leaf: leaf[0], stacked))
    values = {i: state.value for i, state in enumerate(states)}
    rate_ids = {id(first), *map(id, others)}
    # The loop carries no rates, as each step sets them.
    fixed = {i: values.pop(i) for i, state in enumerate(states) if id(state) in rate_ids}

    def step(values: Any, rate: Array, batch: Any) -> tuple[Any, Array]:
        given = values | fixed
        after, loss = pure.jaxpr_call([given[i] for i in range(len(given))], rate, batch)
        return {i: after[i] for i in values}, loss

    unused = (
        "train_step does not train at the rate of optimizer: it must call optimizer.step(gradients)"
        ", before scheduler.step(), and a tx= must read the rate"
    )
    return _run(step, values, stacked, rates, smoothing, divergence, unused)


def lr_range_test_optax(
    loss_and_grad: Callable[[Any, Any], Any],
    params: Any,
    batches: Iterable[Any],
    optimizer: Callable[[Any], optax.GradientTransformation],
    *,
    start: float = 1e-7,
    end: float = 10.0,
    steps: int = 100,
    smoothing: float = 0.98,
    divergence: float = 4.0,
) -> RangeTest:
    """Run :func:`lr_range_test` on a pure function, as with Flax and optax.

    The other parameters, the result and the errors are those of :func:`lr_range_test`.

    Parameters
    ----------
    loss_and_grad : callable
        Maps parameters and a batch to the loss and its gradient: ``jax.value_and_grad(loss)``.
    params : tree of arrays
        The parameters to start from; ``optimizer`` starts anew.
    optimizer : callable
        Maps a learning rate, an optax schedule here, to the transformation: ``optax.adamw``, or
        ``lambda rate: optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate))``.

    Examples
    --------
    >>> import brainsched, jax, jax.numpy as jnp, optax
    >>> loss_and_grad = jax.value_and_grad(lambda weight, batch: (batch * weight) ** 2)
    >>> one = jnp.ones(())
    >>> curve = brainsched.lr_range_test_optax(loss_and_grad, one, [one], optax.sgd)
    >>> print(f"{curve.suggest().rate:.3f}")  # above 1, this loss diverges
    0.066
    """
    rates, stacked = _inputs(start, end, steps, batches)
    present: Array = rates[0]
    # A schedule, since optax.inject_hyperparams would go on with a first rate that is a number.
    tx = optimizer(lambda count: present)

    def step(values: Any, rate: Array, batch: Any) -> tuple[Any, Array]:
        nonlocal present
        present = rate
        params, opt_state = values
        loss, gradients = loss_and_grad(params, batch)
        updates, opt_state = tx.update(gradients, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    values = (params, tx.init(params))
    unused = "optimizer does not use its rate: pass it on, as in lambda rate: optax.sgd(rate)"
    return _run(step, values, stacked, rates, smoothing, divergence, unused)


def _inputs(
    start: float, end: float, steps: int, batches: Iterable[Any]
) -> tuple[Float[np.ndarray, " steps"], Any]:
    """Return the rates, rounded once from float64, and the batches, stacked along a new axis."""
    start, end = checks.number("start", start), checks.number("end", end)
    if not 0 < start < end:
        raise ValueError(f"start must be above 0 and below end, got start={start} and end={end}")
    steps = checks.count("steps", steps, least=10)
    taken = list(itertools.islice(batches, steps))
    if not taken:
        raise ValueError("batches is empty: a generator that was used up must be made anew")
    rates = np.geomspace(start, end, steps).astype(rate_dtype())
    return rates, jax.tree.map(lambda *leaves: jnp.stack(leaves), *taken)


def _run(
    step: Callable[[Any, Array, Any], tuple[Any, Array]],
    values: Any,
    batches: Any,
    rates: Float[np.ndarray, " steps"],
    smoothing: float,
    divergence: float,
    unused: str,
) -> RangeTest:
    """Run the test. ``unused`` is the error if no value after a step depends on the rate."""
    smoothing = checks.within("smoothing", smoothing, "[0, 1)")
    divergence = checks.within("divergence", divergence, "(1, inf)")
    number = len(jax.tree.leaves(batches)[0])

    @jax.jit
    def sweep(values: Any, batches: Any) -> tuple[Array, ...]:
        def body(carry: Any, given: Any) -> Any:
            values, average, lowest, running = carry
            i, rate = given
            batch = jax.tree.map(lambda leaf: leaf[i % number], batches)
            values, loss = lax.cond(
                running,
                lambda: step(values, rate, batch),
                lambda: (values, jnp.full(loss_type.shape, np.nan, loss_type.dtype)),
            )
            loss = loss.astype(np.float32)
            average = smoothing * average + (1 - smoothing) * loss
            smoothed = average / (1 - smoothing ** (i + 1.0))
            lowest = jnp.minimum(lowest, smoothed)  # NaN, once the loss is
            running &= jnp.isfinite(loss)
            running &= smoothed <= lowest + (divergence - 1) * jnp.abs(lowest)
            return (values, average, lowest, running), (loss, smoothed, running)

        begin = (values, jnp.zeros((), np.float32), jnp.float32(np.inf), jnp.asarray(True))
        return lax.scan(body, begin, (jnp.arange(len(rates)), jnp.asarray(rates)))[1]

    with jax.disable_jit(False):  # otherwise brainstate would write to the States
        first = jax.tree.map(lambda leaf: leaf[0], batches)
        trace = jax.make_jaxpr(lambda rate: step(values, rate, first), return_shape=True)
        traced, (_, loss_type) = trace(rates[0])
        if getattr(loss_type, "shape", None) != () or not jnp.issubdtype(loss_type, jnp.floating):
            raise TypeError(f"the loss must be a real scalar, returned alone, got {loss_type}")
        _, (is_used,) = dce_jaxpr(traced.jaxpr, [True] * len(traced.jaxpr.outvars))
        if not is_used:
            raise ValueError(unused)
        losses, smoothed, running = jax.device_get(sweep(values, batches))
    counted = int(running.sum())
    if counted == 0:
        raise ValueError(
            f"the first loss, before any update, is {losses[0]}: check the model and the batch"
        )
    return RangeTest(
        rates[:counted], losses[:counted], smoothed[:counted], diverged=counted < len(rates)
    )
