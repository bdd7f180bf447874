"""The bridge to optax beside optax's own schedules and transformations."""

import jax
import jax.numpy as jnp
import optax
import pytest

import brainsched

PARAMS = {f"w{i}": jnp.ones(64) for i in range(4)}


def warmup_cosine(name):
    if name == "brainsched":
        return brainsched.WarmupCosineSchedule(1e-3, 500, 9000).as_optax()
    return optax.warmup_cosine_decay_schedule(0.0, 1e-3, 500, 9000)


def piecewise(name):
    if name == "brainsched":
        return brainsched.PiecewiseConstantSchedule(1e-3, [300, 600], [1.0, 0.1, 0.01]).as_optax()
    return optax.piecewise_constant_schedule(1e-3, {300: 0.1, 600: 0.1})


def transformation(name):
    if name == "brainsched":
        scheduler = brainsched.PiecewiseConstantSchedule(1e-3, [300, 600], [1.0, 0.1, 0.01])
        return brainsched.scale_by_scheduler(scheduler, {"*": 0})
    if name == "inject_hyperparams":
        return optax.inject_hyperparams(optax.scale_by_learning_rate)(piecewise("optax"))
    return optax.scale_by_learning_rate(piecewise("optax"))


@pytest.mark.parametrize("kind", [warmup_cosine, piecewise], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", ["brainsched", "optax"])
def bench_eager_schedule(measure, name, kind):
    """A count on a device, outside of compiled code."""
    schedule, count = kind(name), jnp.int32(7)
    measure(
        name,
        lambda: jax.block_until_ready(schedule(count)),
        group=f"eager schedule, {kind.__name__}",
        rounds=200,
    )


@pytest.mark.parametrize("name", ["brainsched", "optax", "inject_hyperparams"])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def bench_update(measure, name, compiled):
    """An update of four parameters."""
    tx = transformation(name)
    update = jax.jit(tx.update) if compiled else tx.update
    carry = [tx.init(PARAMS)]

    def call():
        updates, carry[0] = update(PARAMS, carry[0])
        jax.block_until_ready((updates, carry[0]))

    kind = "compiled" if compiled else "eager"
    measure(name, call, group=f"{kind} update", rounds=2000 if compiled else 200)


@pytest.mark.parametrize("kind", [warmup_cosine, piecewise], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", ["brainsched", "optax"])
def bench_compile_schedule(measure, name, kind):
    """Trace and compile the rate of a count."""
    schedules = iter([kind(name) for _ in range(40)])
    count = jnp.int32(7)

    def call():
        schedule = next(schedules)
        jax.jit(lambda count: schedule(count)).lower(count).compile()

    measure(name, call, group=f"compile schedule, {kind.__name__}", rounds=30)


@pytest.mark.parametrize("name", ["brainsched", "one rate"])
def bench_compile_100_groups(measure, name):
    """Trace and compile an update of 1,600 parameters in 100 groups."""
    params = {f"g{group}": {f"w{i}": jnp.ones(8) for i in range(16)} for group in range(100)}

    def make():
        if name == "brainsched":
            scheduler = brainsched.WarmupCosineSchedule([1e-3 + 1e-6 * g for g in range(100)], 5, 9)
            return brainsched.scale_by_scheduler(
                scheduler, lambda path: int(path.split("/")[0][1:])
            )
        return optax.scale_by_learning_rate(optax.warmup_cosine_decay_schedule(0.0, 1e-3, 5, 9))

    made = iter([make() for _ in range(6)])
    state = jax.eval_shape(make().init, params)

    def call():
        tx = next(made)
        jax.jit(lambda updates, state: tx.update(updates, state)).lower(params, state).compile()

    measure(name, call, group="compile 100 groups of 16 parameters", rounds=2)
