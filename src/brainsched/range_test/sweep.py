"""The learning-rate range test: train at rising rates, and see where the loss falls.

The whole test is one compiled loop over copies. A training step of brainstate is first turned into
a pure function of the values of its States, which the loop carries; a step of optax is one already.
Nothing that the user holds is written to, so nothing has to be restored.
"""

import inspect
import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from brainstate.transform import StatefulFunction
from braintools.optim import OptaxOptimizer
from jax import lax
from jaxtyping import Float

from brainsched import checks
from brainsched.core.scheduler import LRScheduler
from brainsched.range_test.curve import RangeTest
from brainsched.schedules import schedule_checks
from brainsched.types import Array, rate_dtype

# JAX's names for a compiled function inside another.
_CALLS = ("jit", "pjit")
# From the carried values, a rate and a batch to the values after a step, and the loss before it.
_Step = Callable[[Any, Array, Any], tuple[Any, Array]]


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

    Step ``i`` of ``steps`` trains at ``start * (end / start) ** (i / (steps - 1))``. The test
    ends when the loss is not finite, or when the smoothed loss exceeds ``divergence`` times its
    lowest value. It is one compiled loop on copies of the States that ``train_step`` uses:
    parameters, moments and random keys stay as they were.

    Parameters
    ----------
    train_step : callable
        From a batch to the loss, a scalar. It takes a step of ``optimizer``, and need not be
        compiled.
    batches : iterable
        The batches, arrays or trees of them, of equal shapes. The first ``steps`` are used, and
        repeated if there are fewer.
    optimizer : OptaxOptimizer
        The optimizer whose rate rises. The rates are those of its first param group; other groups
        keep the proportion of their base rates to it.
    start, end : float
        The first and the last rate.
    steps : int
        How many steps, at least 10.
    smoothing : float
        The weight of the past in the moving average, in [0, 1).
    divergence : float
        Above 1. If the lowest value is negative, its distance counts.

    Returns
    -------
    RangeTest
        The curve, which suggests a rate and draws itself.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; if ``train_step`` returns anything but the loss, or does
        not use the rate of ``optimizer``; if the first loss is not finite.

    See Also
    --------
    lr_range_test_optax : for pure functions, as with Flax.

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
    >>> float(weight.value), optimizer.current_lr
    (1.0, 0.001)
    """
    if not isinstance(optimizer, OptaxOptimizer):
        raise TypeError(
            f"optimizer must be an OptaxOptimizer of braintools.optim, the one that train_step "
            f"steps, got {type(optimizer).__name__}. For optax itself, there is lr_range_test_optax"
        )
    stacked = _stacked(batches, steps)
    _check_takes(train_step, "train_step", "batch")
    set_rate = _rate_setter(optimizer)

    def step_at(rate: Array, batch: Any) -> Any:
        set_rate(rate)
        return train_step(batch)

    pure = StatefulFunction(step_at, return_only_write=False)
    rate, batch = jnp.zeros((), rate_dtype()), _first(stacked)
    # Tracing puts tracers into the States for a moment, and then the same values back.
    jaxpr = pure.make_jaxpr(rate, batch).get_jaxpr(rate, batch)
    if not _uses(jaxpr.jaxpr, jaxpr.jaxpr.invars[0]):
        raise ValueError(
            f"train_step does not use the rate of this {type(optimizer).__name__}, so that every "
            f"rate would give the same loss: it must call optimizer.step(gradients) of this very "
            f"optimizer, at the rate that the optimizer has; one with a rate of its own in tx= "
            f"cannot be tested"
        )
    _check_is_loss("train_step must return the loss alone", pure.get_out_shapes(rate, batch)[0])
    values = tuple(state.value for state in pure.get_states(rate, batch))

    def step(values: Any, rate: Array, batch: Any) -> tuple[Any, Array]:
        return pure.jaxpr_call(values, rate, batch)

    return _run(step, values, stacked, _rates(start, end, steps), smoothing, divergence)


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

    Parameters
    ----------
    loss_and_grad : callable
        From parameters and a batch to the loss and its gradient, as ``jax.value_and_grad(loss)``
        returns them.
    params : tree of arrays
        The parameters to begin with; the optimizer's state is new.
    batches : iterable
        As in :func:`lr_range_test`.
    optimizer : callable
        From a learning rate, here a schedule, to the transformation: ``optax.adamw``, or
        ``lambda rate: optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate))``.
    start, end, steps, smoothing, divergence
        As in :func:`lr_range_test`.

    Returns
    -------
    RangeTest
        The curve, which suggests a rate and draws itself.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; if the first loss is not finite.

    Examples
    --------
    >>> import brainsched, jax, jax.numpy as jnp, optax
    >>> loss_and_grad = jax.value_and_grad(lambda weight, batch: (batch * weight) ** 2)
    >>> curve = brainsched.lr_range_test_optax(
    ...     loss_and_grad, jnp.ones(()), [jnp.ones(())], optax.sgd
    ... )
    >>> print(f"{curve.suggest().rate:.3f}")  # above 1, this loss diverges
    0.066
    """
    if isinstance(optimizer, optax.GradientTransformation | LRScheduler):
        raise TypeError(
            f"optimizer must be a function of the learning rate, as optax.adam is, or lambda rate: "
            f"optax.chain(..., optax.adam(rate)), got a {type(optimizer).__name__}, whose rate is "
            f"fixed"
        )
    if not callable(optimizer):
        raise TypeError(
            f"optimizer must be a function of the learning rate, as optax.adam is, got "
            f"{checks.shown(optimizer)}"
        )
    stacked = _stacked(batches, steps)
    _check_takes(loss_and_grad, "loss_and_grad", "params", "batch")
    result = jax.eval_shape(loss_and_grad, params, _first(stacked))
    if not isinstance(result, tuple) or len(result) != 2:
        raise TypeError(
            "loss_and_grad must return the loss and its gradient: give jax.value_and_grad(loss)"
        )
    _check_is_loss("loss_and_grad must return the loss alone, and its gradient", result[0])
    # A schedule instead of a number, since optax fixes a rate that is a number.
    rates = _rates(start, end, steps)
    was_asked = False

    def rate_at(count: Any) -> Array:
        nonlocal was_asked
        was_asked = True
        return jnp.asarray(rates)[count]

    try:
        tx = optimizer(rate_at)
    except TypeError as error:
        raise TypeError(
            f"optimizer must hand on the learning rate as it is, since it is a schedule here, as "
            f"in lambda rate: optax.sgd(rate) ({error})"
        ) from error

    def step(values: Any, rate: Array, batch: Any) -> tuple[Any, Array]:
        params, opt_state = values
        loss, gradients = loss_and_grad(params, batch)
        updates, opt_state = tx.update(gradients, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), loss

    values = params, tx.init(params)
    jax.eval_shape(step, values, rates[0], _first(stacked))
    if not was_asked:
        raise ValueError(
            "optimizer does not use the learning rate that it is given, so that every rate would "
            "give the same loss: hand it on, as in lambda rate: optax.sgd(rate)"
        )
    return _run(step, values, stacked, rates, smoothing, divergence)


# The loop


def _rates(start: float, end: float, steps: int) -> Float[np.ndarray, " steps"]:
    """Return the rate of each step, each rounded once from float64."""
    start, end = checks.number("start", start), checks.number("end", end)
    if not 0 < start < end:
        raise ValueError(
            f"start must be above 0 and below end, got start={start} and end={end}: the rates "
            f"rise by equal factors"
        )
    return np.geomspace(start, end, _checked_steps(steps)).astype(rate_dtype())


def _checked_steps(steps: Any) -> int:
    return schedule_checks.count("steps", steps, least=10)


def _run(
    step: _Step,
    values: Any,
    batches: Any,
    rates: Float[np.ndarray, " steps"],
    smoothing: float,
    divergence: float,
) -> RangeTest:
    smoothing = schedule_checks.within("smoothing", smoothing, "[0, 1)")
    if checks.number("divergence", divergence) <= 1:
        raise ValueError(f"divergence must be above 1, got {divergence}")

    @jax.jit
    def sweep(values: Any, batches: Any) -> tuple[Array, ...]:
        number = len(jax.tree.leaves(batches)[0])

        def body(carry: Any, given: Any) -> Any:
            values, average, lowest, running = carry
            i, rate = given
            batch = jax.tree.map(lambda leaf: leaf[i % number], batches)
            values, loss = lax.cond(
                running,
                lambda: step(values, rate, batch),
                lambda: (values, jnp.full_like(loss_shape, np.nan)),
            )
            loss = loss.astype(np.float32)
            average = smoothing * average + (1 - smoothing) * loss
            smoothed = average / (1 - smoothing ** (i + 1.0))
            lowest = jnp.minimum(lowest, smoothed)  # NaN, once the loss is
            running &= jnp.isfinite(loss)
            running &= smoothed <= lowest + (divergence - 1) * jnp.abs(lowest)
            return (values, average, lowest, running), (loss, smoothed, running)

        loss_shape = jax.eval_shape(step, values, jnp.asarray(rates[0]), _first(batches))[1]
        begin = (values, jnp.zeros((), np.float32), jnp.float32(np.inf), jnp.asarray(True))
        return lax.scan(body, begin, (jnp.arange(len(rates)), jnp.asarray(rates)))[1]

    with jax.disable_jit(False):  # if it were disabled, brainstate would write to the States
        losses, smoothed, running = jax.device_get(sweep(values, batches))
    counted = int(running.sum())
    if counted == 0:
        raise ValueError(
            f"the loss of the first batch, before any update, is {losses[0]}: it must be finite, "
            f"whatever the rate. Look at the model and the batch"
        )
    return RangeTest(
        rates[:counted], losses[:counted], smoothed[:counted], diverged=counted < len(rates)
    )


def _stacked(batches: Any, steps: Any) -> Any:
    """Return the first batches as one tree, whose leaves have one more axis."""
    is_one = isinstance(batches, Mapping) or getattr(batches, "ndim", 1) == 0
    if is_one or not isinstance(batches, Iterable):
        raise TypeError(
            f"batches must be an iterable of batches, got one {type(batches).__name__}: a single "
            f"batch is [batch]"
        )
    taken = list(itertools.islice(batches, _checked_steps(steps)))
    if not taken:
        raise ValueError(
            "batches is empty: a generator that was used before has none left, and is made anew"
        )
    kind = jax.tree.map(_kind, taken[0])
    for i, batch in enumerate(taken):
        if jax.tree.map(_kind, batch) != kind:
            raise ValueError(
                f"batches[{i}] has other shapes or dtypes than batches[0]: leave out a last batch "
                f"that is smaller, and give one batch of several arrays as [(x, y)]"
            )
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *taken)


def _first(stacked: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[0], stacked)


def _kind(leaf: Any) -> tuple[Any, ...]:
    if isinstance(leaf, str | bytes):
        raise TypeError(f"batches must hold arrays, got {leaf!r}")
    array = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
    return array.shape, str(array.dtype)


def _check_takes(function: Any, *given: str) -> None:
    """Check that ``function`` takes these arguments; its own name comes first."""
    name, *arguments = given
    wanted = " and ".join(arguments)
    if not callable(function):
        raise TypeError(f"{name} must be a function of {wanted}, got {checks.shown(function)}")
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        raise TypeError(
            f"{name} must be a function of {wanted} ({error}): where a batch is a tuple, give "
            f"lambda {', '.join(arguments)}: {name}({', '.join([*arguments[:-1], '*batch'])})"
        ) from None


def _check_is_loss(demand: str, result: Any) -> None:
    scalar = hasattr(result, "shape") and result.shape == ()
    if not scalar or not jnp.issubdtype(result.dtype, jnp.floating):
        found = f"{result.dtype}{list(result.shape)}" if hasattr(result, "shape") else result
        raise TypeError(f"{demand}, a real scalar, not {found}")


def _rate_setter(optimizer: OptaxOptimizer) -> Callable[[Array], None]:
    """Return a function that sets the rates of all param groups, also inside a trace."""
    scheduler = optimizer.lr_scheduler
    home = scheduler.current_lrs
    others = [group["lr"] for group in optimizer.param_groups[1:]]
    if isinstance(scheduler, LRScheduler):
        bases = scheduler.base_lrs[: len(others) + 1]
    else:
        bases = [home.value[0], *(state.value for state in others)]
    if others and float(bases[0]) == 0:
        raise ValueError(
            "the base rate of the first param group is 0, to which the other groups have no "
            "proportion: give base_lr a positive first entry"
        )
    shares = [float(base) / float(bases[0]) for base in bases[1:]]

    def set_rate(rate: Array) -> None:
        rest = [rate * share for share in shares]
        if isinstance(scheduler, LRScheduler):
            home.value = [rate, *rest]
            return
        home.value = [rate, *home.value[1:]]
        for state, other in zip(others, rest, strict=True):
            state.value = other

    return set_rate


def _uses(jaxpr: Any, variable: Any) -> bool:
    """Whether ``jaxpr`` computes anything from ``variable``, rather than passing it on."""
    for equation in jaxpr.eqns:
        for position, given in enumerate(equation.invars):
            if given is variable:
                called = equation.params.get("jaxpr") if equation.primitive.name in _CALLS else None
                if called is None or _uses(called.jaxpr, called.jaxpr.invars[position]):
                    return True
    return False
