"""A step on the host of each class that brainsched and braintools both have, beside one another."""

import brainstate
import braintools
import jax.numpy as jnp
import pytest

import brainsched

OPTIM = {"brainsched": brainsched, "braintools": braintools.optim}
LONG = 10**6

CALLS = {
    "ChainedScheduler": lambda o: o.ChainedScheduler([o.StepLR(0.1, 30), o.StepLR(0.1, 40)]),
    "ConstantLR": lambda o: o.ConstantLR(0.1, 0.5, 5),
    "CosineAnnealingLR": lambda o: o.CosineAnnealingLR(0.1, LONG),
    "CosineAnnealingWarmRestarts": lambda o: o.CosineAnnealingWarmRestarts(0.1, 50),
    "CyclicLR": lambda o: o.CyclicLR(0.1, 0.5, 2000),
    "ExponentialDecayLR": lambda o: o.ExponentialDecayLR(0.1, 100, 0.9),
    "ExponentialLR": lambda o: o.ExponentialLR(0.1, 0.9999),
    "LinearLR": lambda o: o.LinearLR(0.1, 0.5, 1.0, LONG),
    "MultiStepLR": lambda o: o.MultiStepLR(0.1, [30, 80]),
    "OneCycleLR": lambda o: o.OneCycleLR(0.1, total_steps=LONG),
    "PiecewiseConstantSchedule": lambda o: o.PiecewiseConstantSchedule(0.1),
    "PolynomialLR": lambda o: o.PolynomialLR(0.1, LONG),
    "SequentialLR": lambda o: o.SequentialLR([o.WarmupScheduler(0.1, 10), o.StepLR(0.1, 30)], [10]),
    "StepLR": lambda o: o.StepLR(0.1, 30),
    "WarmupCosineSchedule": lambda o: o.WarmupCosineSchedule(0.1, 10, LONG),
    "WarmupScheduler": lambda o: o.WarmupScheduler(0.1, 10),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("package", OPTIM)
def bench_host_step_of_a_class(measure, package, name):
    scheduler = CALLS[name](OPTIM[package])
    optimizer = braintools.optim.SGD(lr=scheduler)
    optimizer.register_trainable_weights({"w": brainstate.ParamState(jnp.ones(2))})
    iterations = 20 if package == "braintools" else 200
    measure(package, scheduler.step, group=f"host step of {name}", iterations=iterations)
