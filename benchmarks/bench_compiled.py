"""What a schedule costs in compiled programs, and to compile them."""

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from brainstate.transform import for_loop, grad, jit

import brainsched

OPTIM = {"brainsched": brainsched, "braintools": braintools.optim}


def training(scheduler, step_scheduler=True):
    """Return a compiled loop of training steps of a 64x64 linear model."""
    model = brainstate.nn.Linear(64, 64)
    weights = {"linear": model.states(brainstate.ParamState)[("weight",)]}
    optimizer = braintools.optim.SGD(lr=scheduler)
    optimizer.register_trainable_weights(weights)
    x = jnp.ones((16, 64))

    def step(_):
        gradients, loss = grad(lambda: (model(x) ** 2).mean(), weights, return_value=True)()
        optimizer.step(gradients)
        if step_scheduler:
            scheduler.step()
        return loss

    return jit(lambda epochs: for_loop(step, epochs))


def piecewise(package, boundaries=3, spacing=600):
    """Return a schedule whose rates are so small that the training stays finite."""
    edges = [spacing * (i + 1) for i in range(boundaries)]
    values = np.linspace(1, 0.5, boundaries + 1).tolist()
    base_lr = 1e-3
    if package == "braintools":  # takes values as absolute rates
        values = [base_lr * value for value in values]
    return OPTIM[package].PiecewiseConstantSchedule(base_lr, edges, values)


@pytest.mark.parametrize("package", ["constant rate", *OPTIM])
def bench_training_step_of_a_64x64_model_in_a_loop(measure, package):
    if package == "constant rate":
        run = training(braintools.optim.ConstantLR(1e-3, 1.0, 0), step_scheduler=False)
    else:
        run = training(piecewise(package))
    epochs = jnp.arange(2000)
    measure(package, lambda: jax.block_until_ready(run(epochs)), units=2000, rounds=150)


@pytest.mark.parametrize("boundaries", [3, 1000, 10_000])
@pytest.mark.parametrize("package", ["brainsched", "optax"])
def bench_trace_and_compile(measure, package, boundaries):
    """A training step with the schedule; optax unrolls its boundaries, and 10,000 take minutes."""
    if package == "optax" and boundaries > 1000:
        pytest.skip("optax takes minutes to compile 10,000 boundaries")

    def ours():
        return training(piecewise("brainsched", boundaries))

    def optaxs():
        edges = {i + 1: 0.999 for i in range(boundaries)}
        optimizer = optax.sgd(optax.piecewise_constant_schedule(1e-3, edges))
        weight, x = jnp.ones((64, 64)), jnp.ones((16, 64))

        def step(carry, _):
            weight, state = carry
            loss, gradient = jax.value_and_grad(lambda w: ((x @ w) ** 2).mean())(weight)
            updates, state = optimizer.update(gradient, state)
            return (optax.apply_updates(weight, updates), state), loss

        carry = (weight, optimizer.init(weight))
        return jax.jit(lambda epochs: jax.lax.scan(step, carry, epochs))

    make = ours if package == "brainsched" else optaxs
    program = iter([make() for _ in range(5)])
    measure(
        package,
        lambda: next(program).lower(jnp.arange(10)).compile(),
        group=f"trace and compile, {boundaries} boundaries",
        rounds=2,
    )


@pytest.mark.parametrize("boundaries", [3, 1000, 10_000])
@pytest.mark.parametrize("package", ["no look-up", "brainsched", "optax"])
def bench_look_up(measure, package, boundaries):
    """In a compiled loop of 20,000 iterations; subtract what the loop takes without it."""
    if package == "optax" and boundaries > 1000:
        pytest.skip("optax takes minutes to compile 10,000 boundaries")
    edges = [20_000 * (i + 1) // (boundaries + 1) for i in range(boundaries)]
    if package == "no look-up":
        schedule = lambda count: count.astype(jnp.float32)  # noqa: E731
    elif package == "optax":
        schedule = optax.piecewise_constant_schedule(0.1, dict.fromkeys(edges, 0.999))
    else:
        values = np.linspace(1, 0, boundaries + 1)
        schedule = brainsched.PiecewiseConstantSchedule(0.1, edges, values).lr_at

    @jax.jit
    def run(counts):
        return jax.lax.scan(lambda s, t: (s * 0.999 + jnp.ravel(schedule(t))[0], None), 0.0, counts)

    counts = jnp.arange(20_000)
    measure(
        package,
        lambda: jax.block_until_ready(run(counts)),
        group=f"look-up in a loop, {boundaries} boundaries",
        units=20_000,
        rounds=20,
    )


@pytest.mark.parametrize("name", ["brainsched", "one after another"])
def bench_sweep_of_1000_schedules(measure, name):
    """A vmapped sweep against the same compiled run for each of them: a run of 100 steps."""
    rates = jnp.linspace(1e-3, 1e-1, 1000)

    def run(base_lr):
        scheduler = brainsched.PiecewiseConstantSchedule(base_lr, [30, 60], [1.0, 0.5, 0.1])

        def step(weight, epoch):
            return weight - scheduler.lr_at(epoch)[0] * weight, None

        return jax.lax.scan(step, jnp.ones(16), jnp.arange(100))[0]

    if name == "brainsched":
        sweep = jax.jit(jax.vmap(run))
        measure(name, lambda: jax.block_until_ready(sweep(rates)), rounds=10)
    else:
        one, each = jax.jit(run), list(rates)
        measure(name, lambda: jax.block_until_ready([one(rate) for rate in each]), rounds=3)


@pytest.mark.parametrize("package", OPTIM)
def bench_a_million_compiled_scheduler_steps(measure, package):
    scheduler = piecewise(package, spacing=300_000)

    @jit
    def run():
        def step(_):
            scheduler.step()
            return None

        for_loop(step, jnp.arange(1_000_000))
        return scheduler.last_epoch.value

    measure(package, lambda: jax.block_until_ready(run()), units=1_000_000, rounds=3)
