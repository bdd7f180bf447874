"""What a schedule adds to a compiled training step, in what can be counted exactly.

Times are in benchmarks/: they depend on the machine, and decide no test.
"""

import gc
from collections import Counter

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from brainstate.transform import grad, jit

import brainsched


def training_step(scheduler, stepped=True, groups=1):
    """Return a compiled step of Adam on a linear model, and what it trains."""
    states = {f"w{group}": brainstate.ParamState(jnp.ones((4, 4))) for group in range(groups)}
    optimizer = braintools.optim.Adam(lr=scheduler)
    optimizer.register_trainable_weights({"w0": states["w0"]})
    for group in range(1, groups):
        optimizer.add_param_group({f"w{group}": states[f"w{group}"]})

    @jit
    def step(x):
        gradients = grad(lambda: sum((x @ w.value).sum() for w in states.values()), states)()
        optimizer.step(gradients)
        if stepped:
            scheduler.step()

    return step, [*brainstate.graph.states(optimizer).values(), *states.values()]


def operations(lowered):
    """Count the operations of a lowered program, constants and function frames apart."""
    lines = lowered.as_text().splitlines()
    names = [line.split(" = ")[1].split()[0].strip('"') for line in lines if " = " in line]
    return Counter(name for name in names if name not in ("stablehlo.constant", "call"))


def added_operations(scheduler, groups=1):
    x = jnp.ones((4, 4))
    with_schedule, _ = training_step(scheduler, groups=groups)
    without, _ = training_step(scheduler_of_constant(groups), stepped=False, groups=groups)
    return (operations(with_schedule.lower(x)) - operations(without.lower(x))).total()


def scheduler_of_constant(groups):
    return brainsched.ConstantLR([0.1] * groups, 1.0, 0)


@pytest.mark.parametrize(
    ("scheduler", "added"),
    [
        (brainsched.PiecewiseConstantSchedule(0.1, [3, 6], [1.0, 0.5, 0.1]), 44),
        (brainsched.PiecewiseConstantSchedule(0.1, range(10_000), np.ones(10_001)), 44),
        (brainsched.CosineAnnealingLR(0.1, 100), 40),
        (
            brainsched.SequentialLR(
                [brainsched.WarmupScheduler(0.1, 5), brainsched.CosineAnnealingLR(0.1, 100)], [5]
            ),
            76,
        ),
    ],
    ids=["3 boundaries", "10,000 boundaries", "cosine", "warm-up, then cosine"],
)
def test_a_schedule_adds_at_most_so_many_operations_to_a_training_step(scheduler, added):
    assert 0 < added_operations(scheduler) <= added


def test_a_param_group_adds_two_operations_to_those_of_the_schedule():
    base_lrs = [0.1] * 20
    ten, twenty = (
        added_operations(brainsched.CosineAnnealingLR(base_lrs[:groups], 100), groups)
        for groups in (10, 20)
    )
    assert twenty - ten == 10 * 2  # a slice of the rates, and its shape


def test_with_scale_by_scheduler_a_group_adds_two_operations():
    def count(groups):
        params = {f"w{group}": jnp.ones((4, 4)) for group in range(groups)}
        scheduler = brainsched.CosineAnnealingLR([0.1] * groups, 100)
        ours = brainsched.scale_by_scheduler(scheduler, lambda path: int(path[1:]))
        totals = []
        for tx in (ours, optax.scale_by_learning_rate(0.1)):
            totals.append(operations(jax.jit(tx.update).lower(params, tx.init(params))))
        return (totals[0] - totals[1]).total()

    assert count(20) - count(10) == 10 * 2  # a slice of the rates, and its shape


@pytest.mark.parametrize(
    "scheduler",
    [
        brainsched.PiecewiseConstantSchedule(0.1, [3, 6], [1.0, 0.5, 0.1]),
        brainsched.CosineAnnealingLR(0.1, 100),
    ],
)
def test_a_compiled_step_moves_nothing_and_keeps_no_more_arrays_alive(scheduler, compilations):
    step, states = training_step(scheduler)
    x = jnp.ones((4, 4))
    for state in states:
        state.value = jax.device_put(state.value)
    step(x)
    compiled = len(compilations)
    gc.collect()
    alive = len(jax.live_arrays())
    with jax.transfer_guard("disallow"):
        for _ in range(50):
            step(x)
    gc.collect()
    assert len(jax.live_arrays()) == alive
    assert len(compilations) == compiled
    assert scheduler.epoch == 51


def test_a_step_on_the_host_creates_no_array_on_a_device(compilations):
    scheduler = brainsched.WarmupCosineSchedule([0.1, 0.2], 10, 1000)
    gc.collect()
    alive = len(jax.live_arrays())
    with jax.transfer_guard("disallow"):
        for _ in range(300):
            scheduler.step()
    gc.collect()
    assert len(jax.live_arrays()) == alive
    assert compilations == []
