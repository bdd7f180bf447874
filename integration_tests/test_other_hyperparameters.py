"""Schedules of what is no learning rate, in optax and in compiled steps of brainstate.

The expected numbers are those of the same training written out in NumPy, in float64.
"""

import math
from typing import Any

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import brainsched
from brainsched import ValueSchedule

UPDATES = 12
START = np.array([1.0, -2.0, 0.5])
RATE = brainsched.WarmupCosineSchedule(0.1, warmup_steps=3, total_steps=12)
DECAY = brainsched.PiecewiseConstantSchedule(0.2, [4, 8], [1.0, 0.5, 0.0])
RATES = [0.1 * t / 3 if t < 3 else 0.05 * (1 + math.cos(math.pi * (t - 3) / 9)) for t in range(12)]
DECAYS = [0.2] * 4 + [0.1] * 4 + [0.0] * 4


def gradient(weight):
    """Return the gradient of half the squared distance from 1, in NumPy and JAX alike."""
    return weight - 1.0


def trained(tx, updates=UPDATES):
    """Train under ``jax.jit`` with an optax transformation; return the weights of each update."""
    weight = jnp.asarray(START, jnp.float32)
    state = tx.init(weight)
    update = jax.jit(tx.update)
    seen = []
    for _ in range(updates):
        change, state = update(gradient(weight), state, weight)
        weight = optax.apply_updates(weight, change)
        seen.append(np.asarray(weight))
    return np.stack(seen), state


def adam_steps():
    """Yield a function from a gradient to Adam's direction, for each update in turn."""
    first, second = np.zeros(3), np.zeros(3)
    for t in range(1, UPDATES + 1):

        def direction(g, t=t):
            nonlocal first, second
            first = 0.9 * first + 0.1 * g
            second = 0.999 * second + 0.001 * g**2
            return (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)

        yield direction


def adam_with_decay(taken_off):
    """Train in NumPy; ``taken_off`` is the share of the weight that each update takes off."""
    weight, seen = START.copy(), []
    for t, direction in enumerate(adam_steps()):
        weight = weight - RATES[t] * direction(gradient(weight)) - taken_off[t] * weight
        seen.append(weight)
    return np.stack(seen)


def decayed_adamw():
    return optax.inject_hyperparams(optax.adamw)(
        learning_rate=RATE.as_optax(), weight_decay=DECAY.as_optax()
    )


def test_rate_and_weight_decay_of_adamw_each_follow_their_schedule():
    found, state = trained(decayed_adamw())
    expected = adam_with_decay([rate * decay for rate, decay in zip(RATES, DECAYS, strict=True)])
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-5)
    assert state.hyperparams["learning_rate"] == np.float32(RATES[-1])
    assert state.hyperparams["weight_decay"] == 0.0


def test_the_same_transformation_is_an_optimizer_of_braintools():
    weight = brainstate.ParamState(jnp.asarray(START, jnp.float32))
    optimizer = braintools.optim.OptaxOptimizer(tx=decayed_adamw())
    optimizer.register_trainable_weights({"weight": weight})

    @brainstate.transform.jit
    def step():
        optimizer.step({"weight": gradient(weight.value)})

    for _ in range(UPDATES):
        step()
    np.testing.assert_allclose(weight.value, trained(decayed_adamw())[0][-1], rtol=1e-6)


def test_decay_before_the_rate_follows_it_and_decay_after_it_does_not():
    scaled = brainsched.scale_by_scheduler(RATE, {"*": 0})
    before = optax.chain(optax.scale_by_adam(), optax.add_decayed_weights(0.2), scaled)
    expected = adam_with_decay([0.2 * rate for rate in RATES])
    np.testing.assert_allclose(trained(before)[0], expected, rtol=2e-6, atol=1e-5)

    own = ValueSchedule(brainsched.LinearLR(1.0, 1.0, 0.0, total_iters=10), 0.0, -0.02)
    after = optax.chain(optax.scale_by_adam(), scaled, optax.add_decayed_weights(own))
    expected = adam_with_decay([0.02 * max(1 - t / 10, 0) for t in range(UPDATES)])
    np.testing.assert_allclose(trained(after)[0], expected, rtol=2e-6, atol=1e-5)


@pytest.mark.parametrize("under_its_own_name", [True, False])
def test_momentum_follows_its_schedule(under_its_own_name):
    rise = brainsched.WarmupScheduler(0.9, 6, warmup_start_lr=0.5)
    momentum = ValueSchedule(brainsched.WarmupScheduler(1.0, 6), at_zero=0.5, at_one=0.9)
    found, _ = trained(
        optax.inject_hyperparams(optax.sgd)(
            learning_rate=0.1, momentum=momentum if under_its_own_name else rise.as_optax()
        )
    )
    weight, velocity, expected = START.copy(), np.zeros(3), []
    for t in range(UPDATES):
        velocity = gradient(weight) + (0.5 + 0.4 * min(t / 6, 1)) * velocity
        weight = weight - 0.1 * velocity
        expected.append(weight)
    np.testing.assert_allclose(found, np.stack(expected), rtol=2e-6, atol=1e-5)


def test_an_average_of_weights_with_a_decay_that_rises_in_optax_and_in_brainstate():
    decay = ValueSchedule(brainsched.CosineAnnealingLR(1.0, T_max=8), at_zero=0.99, at_one=0.5)
    decays = [0.745 - 0.245 * math.cos(math.pi * min(t, 8) / 8) for t in range(UPDATES)]
    signal = np.random.default_rng(0).normal(size=(UPDATES, 3)).astype(np.float32)
    expected = np.zeros(3)
    for t in range(UPDATES):
        expected = decays[t] * expected + (1 - decays[t]) * signal[t]

    tx = optax.inject_hyperparams(optax.ema)(decay=decay, debias=False)
    state = tx.init(jnp.zeros(3))
    for row in signal:
        in_optax, state = tx.update(jnp.asarray(row), state)
    np.testing.assert_allclose(in_optax, expected, rtol=2e-6)

    scheduler = brainsched.StepLR(0.1)
    average = brainstate.ShortTermState(jnp.zeros(3))

    def step(row):
        fresh = 1 - decay(scheduler.last_epoch.value)
        average.value = optax.incremental_update(row, average.value, fresh)
        scheduler.step()

    brainstate.transform.for_loop(step, jnp.asarray(signal))
    np.testing.assert_allclose(average.value, expected, rtol=2e-6)


def test_the_weight_of_a_loss_term_follows_its_schedule_in_the_compiled_step(compilations):
    weight = brainstate.ParamState(jnp.asarray(START, jnp.float32))
    scheduler = brainsched.StepLR(0.1, step_size=5, gamma=0.5)
    optimizer = braintools.optim.SGD(lr=scheduler)
    optimizer.register_trainable_weights({"weight": weight})
    kl_weight = brainsched.WarmupScheduler(0.5, warmup_epochs=4)

    @brainstate.transform.jit
    def train_step():
        beta = kl_weight.lr_at(scheduler.last_epoch.value)[0]

        def loss():
            return ((weight.value - 1) ** 2).sum() / 2 + beta * (weight.value**2).sum() / 2

        optimizer.step(brainstate.transform.grad(loss, {"weight": weight})())
        scheduler.step()
        return beta

    betas = []
    for epoch in range(UPDATES):
        betas.append(float(train_step()))
        if epoch == 1:
            compilations.clear()
    assert not compilations
    assert betas == [0.0, 0.125, 0.25, 0.375] + [0.5] * 8

    expected = START.copy()
    for epoch in range(UPDATES):
        rate = 0.1 * 0.5 ** (epoch // 5)
        expected = expected - rate * (gradient(expected) + betas[epoch] * expected)
    np.testing.assert_allclose(weight.value, expected, rtol=2e-6)


def test_a_quantity_with_a_clock_of_its_own_is_stepped_and_read_in_the_compiled_step():
    temperature = brainsched.ExponentialLR(2.0, gamma=0.5)

    def sample(_):
        (now,) = temperature.get_lr()
        temperature.step()
        return now

    seen = brainstate.transform.for_loop(sample, jnp.arange(5))
    assert seen.tolist() == [2.0, 1.0, 0.5, 0.25, 0.125]
    assert float(brainstate.transform.jit(sample)(0)) == 0.0625
    again = brainsched.ExponentialLR(2.0, gamma=0.5)
    again.load_state_dict(temperature.state_dict())
    assert again.get_lr() == [2.0 * 0.5**6]


def test_the_slope_of_a_surrogate_gradient_follows_its_schedule():
    slope = brainsched.ExponentialDecayLR(1.0, decay_steps=1, decay_rate=2.0, end_value=8.0)
    scheduler = brainsched.StepLR(0.1)
    drive = brainstate.ParamState(jnp.asarray(0.3))

    @brainstate.transform.jit
    def train_step():
        alpha: Any = slope.lr_at(scheduler.last_epoch.value)[0]  # it is annotated as a float
        spike = lambda: braintools.surrogate.sigmoid(drive.value, alpha=alpha)  # noqa: E731
        gradients, spikes = brainstate.transform.grad(spike, [drive], return_value=True)()
        scheduler.step()
        return spikes, gradients[0]

    for alpha in (1.0, 2.0, 4.0, 8.0, 8.0):
        spikes, by_drive = train_step()
        sigmoid = 1 / (1 + math.exp(-alpha * 0.3))
        assert spikes == 1.0
        assert by_drive == pytest.approx(alpha * sigmoid * (1 - sigmoid), rel=1e-6)


def test_a_signed_value_has_the_same_bits_in_optax_and_in_brainstate():
    value = ValueSchedule(brainsched.WarmupCosineSchedule(1.0, 3, UPDATES), -70.0, 30.0)
    shares = [t / 3 if t < 3 else (1 + math.cos(math.pi * (t - 3) / 9)) / 2 for t in range(UPDATES)]
    expected = np.array([-70 + 100 * share for share in shares], np.float32)

    tx = optax.inject_hyperparams(optax.add_decayed_weights)(weight_decay=value)
    weight = jnp.ones(())
    state = tx.init(weight)
    in_optax = []
    for _ in range(UPDATES):
        update, state = jax.jit(tx.update)(jnp.zeros(()), state, weight)
        in_optax.append(update)
    np.testing.assert_array_equal(np.array(in_optax), expected)

    scheduler = brainsched.StepLR(0.1)

    def read(_):
        now = value(scheduler.last_epoch.value)
        scheduler.step()
        return now

    np.testing.assert_array_equal(
        brainstate.transform.for_loop(read, jnp.arange(UPDATES)), expected
    )
    np.testing.assert_array_equal(value(range(UPDATES)), expected)
