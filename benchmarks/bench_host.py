"""One step, and one look at the rate, on the host."""

import brainstate
import braintools
import jax
import jax.numpy as jnp
import optax
import pytest

import brainsched

OPTIM = {"brainsched": brainsched, "braintools": braintools.optim}
NEVER = 10**8

PIECEWISE = {"base_lr": 0.1, "boundaries": [NEVER, 2 * NEVER], "values": [1.0, 0.1, 0.01]}


def piecewise(package):
    return OPTIM[package].PiecewiseConstantSchedule(**PIECEWISE)


def smooth(package):
    return OPTIM[package].WarmupCosineSchedule(0.1, warmup_steps=10, total_steps=NEVER)


def composed(package):
    optim = OPTIM[package]
    parts = [optim.WarmupScheduler(0.1, 10), optim.CosineAnnealingLR(0.1, NEVER)]
    return optim.SequentialLR(parts, [10])


def with_optimizer(scheduler, groups=1):
    optimizer = braintools.optim.SGD(lr=scheduler)
    optimizer.register_trainable_weights({"w0": brainstate.ParamState(jnp.ones(2))})
    for group in range(1, groups):
        optimizer.add_param_group({f"w{group}": brainstate.ParamState(jnp.ones(2))})
    return scheduler


def torch_scheduler(make, groups=1):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    parameters = [{"params": [torch.nn.Parameter(torch.ones(2))]} for _ in range(groups)]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    scheduler = make(torch.optim.lr_scheduler, optimizer)
    optimizer.step()  # or PyTorch warns
    return scheduler


def steps(package):
    return 20 if package == "braintools" else 200


def rounds(package):
    return 5 if package == "braintools" else 60


@pytest.mark.parametrize("package", OPTIM)
def bench_host_step_without_optimizer(measure, package):
    measure(package, piecewise(package).step, iterations=steps(package))


@pytest.mark.parametrize("package", [*OPTIM, "torch"])
def bench_host_step_piecewise_constant(measure, package):
    if package == "torch":
        scheduler = torch_scheduler(lambda lrs, opt: lrs.MultiStepLR(opt, [NEVER, 2 * NEVER]))
    else:
        scheduler = with_optimizer(piecewise(package))
    measure(package, scheduler.step, iterations=steps(package))


@pytest.mark.parametrize("package", [*OPTIM, "torch"])
def bench_host_step_smooth(measure, package):
    if package == "torch":
        scheduler = torch_scheduler(lambda lrs, opt: lrs.CosineAnnealingLR(opt, NEVER))
    else:
        scheduler = with_optimizer(smooth(package))
    measure(package, scheduler.step, iterations=steps(package))


@pytest.mark.parametrize("package", [*OPTIM, "torch"])
def bench_host_step_sequence_of_two(measure, package):
    if package == "torch":
        scheduler = torch_scheduler(
            lambda lrs, opt: lrs.SequentialLR(
                opt, [lrs.LinearLR(opt, 0.1), lrs.CosineAnnealingLR(opt, NEVER)], [10]
            )
        )
    else:
        scheduler = with_optimizer(composed(package))
    measure(package, scheduler.step, iterations=steps(package), rounds=rounds(package))


@pytest.mark.parametrize("groups", [1, 10, 100, 1000])
@pytest.mark.parametrize("package", ["brainsched", "torch"])
def bench_host_step_groups(measure, package, groups):
    """braintools' own schedulers leave added groups unscheduled."""
    if package == "torch":
        scheduler = torch_scheduler(lambda lrs, opt: lrs.CosineAnnealingLR(opt, NEVER), groups)
    else:
        rates = [0.1] * groups
        scheduler = brainsched.WarmupCosineSchedule(rates, warmup_steps=10, total_steps=NEVER)
    measure(package, scheduler.step, group=f"host step smooth, {groups} groups", iterations=20)


@pytest.mark.parametrize("package", [*OPTIM, "torch", "optax", "optax, jitted"])
def bench_get_lr(measure, package):
    if package == "torch":
        scheduler = torch_scheduler(lambda lrs, opt: lrs.MultiStepLR(opt, [NEVER, 2 * NEVER]))
        call = scheduler.get_last_lr
    elif package in OPTIM:
        call = with_optimizer(piecewise(package)).get_lr
    else:
        schedule = optax.piecewise_constant_schedule(0.1, {NEVER: 0.1, 2 * NEVER: 0.1})
        schedule = jax.jit(schedule) if "jitted" in package else schedule
        count = jnp.int32(5)
        call = lambda: jax.block_until_ready(schedule(count))  # noqa: E731
    measure(package, call, iterations=steps("braintools" if package == "optax" else package))
