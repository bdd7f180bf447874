"""A run that goes from brainstate to Flax and back, and schedulers in flax.serialization."""

import subprocess
import sys

import brainstate
import braintools
import flax.serialization
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import brainsched.flax
from brainsched import PiecewiseConstantSchedule, scale_by_scheduler

STEPS_PER_EPOCH = 4
X = np.random.default_rng(0).normal(size=(32, 5)).astype(np.float32)
Y = (X @ np.arange(5, dtype=np.float32))[:, None]


def schedule():
    return PiecewiseConstantSchedule(0.1, [1, 3, 5], [1.0, 0.5, 0.25, 0.1])


def brainstate_model():
    brainstate.random.seed(0)
    return brainstate.nn.Sequential(
        brainstate.nn.Linear(5, 8), brainstate.nn.LayerNorm((8,)), brainstate.nn.Linear(8, 1)
    )


def train_under_brainstate(model, scheduler, epochs):
    """Train for some epochs; return the rate of each."""
    weights = {
        ".".join(map(str, path)): weight
        for path, weight in model.states(brainstate.ParamState).items()
    }
    optimizer = braintools.optim.SGD(lr=scheduler)
    optimizer.register_trainable_weights(weights)

    @brainstate.transform.jit
    def train_step():
        optimizer.step(brainstate.transform.grad(lambda: ((model(X) - Y) ** 2).mean(), weights)())

    rates = []
    for _ in range(epochs):
        for _ in range(STEPS_PER_EPOCH):
            train_step()
        rates.append(float(scheduler.get_last_lr()[0]))
        scheduler.step()
    return rates


def train_under_flax(model, scheduler, epochs):
    """Train for some epochs; return the rate of each, and the epoch that comes next."""
    tx = scale_by_scheduler(scheduler, {"*": 0}, STEPS_PER_EPOCH, last_epoch=scheduler.epoch)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def train_step(model, optimizer):
        optimizer.update(model, nnx.grad(lambda model: ((model(X) - Y) ** 2).mean())(model))

    rates = []
    for _ in range(epochs):
        for _ in range(STEPS_PER_EPOCH):
            train_step(model, optimizer)
        rates.append(float(optimizer.opt_state.hyperparams["learning_rate"][...]))
    return rates, int(optimizer.opt_state.count[...]) // STEPS_PER_EPOCH


def test_run_goes_from_brainstate_to_flax_and_back_at_the_same_epochs_and_rates():
    straight = brainstate_model()
    expected = train_under_brainstate(straight, schedule(), 6)
    np.testing.assert_allclose(expected, [0.1, 0.05, 0.05, 0.025, 0.025, 0.01], rtol=1e-7)

    model, scheduler = brainstate_model(), schedule()
    first = train_under_brainstate(model, scheduler, 2)

    flax_model = brainstate.interop.to_nnx(model)
    second, epoch = train_under_flax(flax_model, scheduler, 2)
    assert epoch == 4
    assert scheduler.epoch == 2

    model, scheduler = brainstate.interop.from_nnx(flax_model), schedule()
    scheduler.step(epoch)
    third = train_under_brainstate(model, scheduler, 2)

    assert first + second + third == expected
    inputs = jnp.asarray(X)
    np.testing.assert_allclose(model(inputs), straight(inputs), rtol=1e-4, atol=1e-5)
    assert np.abs(model(inputs) - brainstate_model()(inputs)).max() > 0.1


def test_run_goes_from_flax_to_brainstate():
    expected = brainstate_model()
    rates = train_under_brainstate(expected, schedule(), 4)

    model, scheduler = brainstate.interop.to_nnx(brainstate_model()), schedule()
    first, epoch = train_under_flax(model, scheduler, 2)
    scheduler.step(epoch)
    model = brainstate.interop.from_nnx(model)
    assert first + train_under_brainstate(model, scheduler, 2) == rates
    np.testing.assert_allclose(model(X), expected(X), rtol=1e-4, atol=1e-5)


# flax.serialization


def two_groups(**options):
    return PiecewiseConstantSchedule(0.5, [2], [[1.0, 0.25], [0.5, 2.0]], **options)


def in_an_optimizer(scheduler):
    optimizer = braintools.optim.Adam(lr=scheduler)
    optimizer.register_trainable_weights({"a": brainstate.ParamState(jnp.ones(1))})
    optimizer.add_param_group({"b": brainstate.ParamState(jnp.ones(1))}, lr=0.75)
    return optimizer


def through_bytes(scheduler, target):
    return flax.serialization.from_bytes(target, flax.serialization.to_bytes(scheduler))


def through_state_dict(scheduler, target):
    return flax.serialization.from_state_dict(target, flax.serialization.to_state_dict(scheduler))


@pytest.mark.parametrize("through", [through_bytes, through_state_dict])
def test_scheduler_comes_back_with_position_groups_and_hand_set_rates(through):
    scheduler, target = two_groups(), two_groups()
    optimizer, target_optimizer = in_an_optimizer(scheduler), in_an_optimizer(target)
    scheduler.step(2)
    optimizer.current_lr = 0.0625
    restored = through(scheduler, target)
    assert type(restored) is PiecewiseConstantSchedule
    assert restored.epoch == 2
    assert restored.get_lr() == [0.25, 1.5]
    assert restored.get_last_lr() == [0.0625, 1.5]
    # As everywhere in Flax, the target stays as it was.
    assert restored is not target
    assert restored.optimizer is None
    assert target.epoch == 0
    assert target.optimizer is target_optimizer
    assert target_optimizer.current_lr == 0.5


@pytest.mark.parametrize("through", [through_bytes, through_state_dict])
def test_scheduler_comes_back_inside_a_larger_tree(through):
    schedulers = [two_groups(last_epoch=1), schedule()]
    schedulers[0].step(5)
    schedulers[1].step(4)
    tree = {"step": 3, "schedulers": schedulers}
    target = {"step": 0, "schedulers": [two_groups(), schedule()]}
    restored = through(tree, target)
    assert restored["step"] == 3
    assert [scheduler.epoch for scheduler in restored["schedulers"]] == [5, 4]


EVERY_CLASS = [
    getattr(brainsched, name)
    for name in brainsched.__all__
    if issubclass(type(getattr(brainsched, name)), type(brainsched.LRScheduler))
    and name != "LRScheduler"
]


@pytest.mark.parametrize("cls", EVERY_CLASS)
def test_every_class_is_known_to_flax(cls):
    assert flax.serialization.is_serializable(cls)


def test_class_defined_later_is_known_to_flax():
    class HalvingLR(brainsched.LRScheduler):
        def formula(self, epoch, base_lrs, xp):
            return base_lrs * 0.5**epoch

    scheduler = HalvingLR(0.5)
    scheduler.step(3)
    assert through_bytes(scheduler, HalvingLR(0.5)).get_last_lr() == [0.0625]


def test_bytes_of_another_schedule_warn_and_those_of_another_class_raise():
    saved = flax.serialization.to_bytes(schedule())
    with pytest.warns(UserWarning, match="boundaries, values changed"):
        flax.serialization.from_bytes(PiecewiseConstantSchedule(0.1, [2], [1.0, 0.5]), saved)
    with pytest.raises(ValueError, match="'PiecewiseConstantSchedule', but this scheduler is"):
        flax.serialization.from_bytes(brainsched.StepLR(0.1), saved)


def test_importing_brainsched_and_using_its_optax_bridge_imports_no_flax():
    program = """
import sys, brainsched, jax.numpy as jnp
scheduler = brainsched.PiecewiseConstantSchedule()
brainsched.scale_by_scheduler(scheduler, {"*": 0}).init({"a": jnp.ones(1)})
scheduler.as_optax()(3)
print([name for name in sys.modules if name.partition(".")[0] in ("flax", "orbax")])
"""
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=300
    )
    assert finished.stdout == "[]\n"
