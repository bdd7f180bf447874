"""Every schedule against its documented definition, in plain float64 arithmetic of one epoch."""

import inspect
import math
from fractions import Fraction
from typing import Any

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import brainsched
from brainsched.schedules.composition import SequentialLR
from brainsched.schedules.cosine import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    WarmupCosineSchedule,
)
from brainsched.schedules.curves import STRATEGIES
from brainsched.schedules.cyclic import CyclicLR, OneCycleLR
from brainsched.schedules.exponential import ExponentialDecayLR, ExponentialLR
from brainsched.schedules.functional import LambdaLR
from brainsched.schedules.inverse import InverseSqrtLR, InverseTimeDecayLR
from brainsched.schedules.piecewise_linear import PiecewiseLinearSchedule
from brainsched.schedules.polynomial import ConstantLR, LinearLR, PolynomialLR
from brainsched.schedules.steps import MultiStepLR, StepLR
from brainsched.schedules.warmup import WSD, WarmupScheduler

LAST = 2**31 - 1

# The documented definitions: from an epoch and a group's base rate to its rate


def floor_of(base, eta_min=0.0, eta_min_ratio=None):
    return eta_min if eta_min_ratio is None else base * eta_min_ratio


def step_lr(t, base, step_size=30, gamma=0.1, **floor):
    """With the step as a fraction of whole numbers."""
    falls = t // Fraction(step_size).limit_denominator(1000)
    return max(base * gamma**falls, floor_of(base, **floor))


def multi_step_lr(t, base, milestones=(30, 60, 90), gamma=0.1, **floor):
    return max(base * gamma ** len([m for m in milestones if m <= t]), floor_of(base, **floor))


def exponential_lr(t, base, gamma=0.95, **floor):
    return max(base * gamma**t, floor_of(base, **floor))


def exponential_decay_lr(
    t,
    base,
    decay_steps=1000,
    decay_rate=0.96,
    transition_begin=0,
    staircase=False,
    end_value=None,
    end_value_ratio=0.0,
):
    rate = base
    if t >= transition_begin:
        exponent = (t - transition_begin) / decay_steps
        if staircase:
            exponent = math.floor(exponent)
        rate = base * math.exp(min(exponent * math.log(decay_rate), 700))
    rate = min(rate, float(np.finfo(np.float32).max))
    if end_value is not None and decay_rate < 1:
        rate = max(rate, end_value)
    if end_value is not None and decay_rate >= 1:
        rate = min(rate, end_value)
    return max(rate, base * end_value_ratio)


def half_wave(start, end, t, length):
    return end + (start - end) * (1 + math.cos(math.pi * t / length)) / 2


def cosine_annealing_lr(t, base, T_max=50, **floor):
    eta_min = floor_of(base, **floor)
    if t >= T_max:
        return eta_min
    return half_wave(base, eta_min, t, T_max)


def cosine_annealing_warm_restarts(t, base, T_0=10, T_mult=1, decay=1.0, **floor):
    """As Keras' CosineDecayRestarts, whose m_mul is ``decay`` and whose alpha is a share."""
    eta_min = floor_of(base, **floor)
    T_0 = Fraction(T_0).limit_denominator(1000)
    if T_mult == 1:
        cycle, t = divmod(t, T_0)
        length = T_0
    else:
        cycle, length = 0, T_0
        while t >= length:
            t -= length
            length *= T_mult
            cycle += 1
    return half_wave(eta_min + (base - eta_min) * decay**cycle, eta_min, t, length)


def inverse_sqrt_lr(t, base, warmup_steps=1000, timescale=None, warmup_start_lr=0.0, **floor):
    """As Hugging Face's get_inverse_sqrt_schedule, but for the first rate of the warm-up."""
    if timescale is None:
        timescale = warmup_steps or 10_000
    if t < warmup_steps:
        return warmup_start_lr + (base - warmup_start_lr) * t / warmup_steps
    shift = timescale - warmup_steps
    return max(base / math.sqrt((t + shift) / timescale), floor_of(base, **floor))


def inverse_time_decay_lr(t, base, decay_steps=1000, decay_rate=1.0, staircase=False, **floor):
    """As Keras' InverseTimeDecay."""
    times = math.floor(t / decay_steps) if staircase else t / decay_steps
    return max(base / (1 + decay_rate * times), floor_of(base, **floor))


def piecewise_linear_schedule(t, base, boundaries, values):
    if t >= boundaries[-1]:
        return base * values[-1]
    if t < boundaries[0]:
        return base * values[0]
    i = max(i for i, boundary in enumerate(boundaries) if boundary <= t)
    share = (t - boundaries[i]) / (boundaries[i + 1] - boundaries[i])
    return base * (values[i] + (values[i + 1] - values[i]) * share)


def warmup_cosine_schedule(
    t, base, warmup_steps=1000, total_steps=10000, warmup_start_lr=0.0, **floor
):
    eta_min = floor_of(base, **floor)
    if t < warmup_steps:
        return warmup_start_lr + t / warmup_steps * (base - warmup_start_lr)
    if t >= total_steps:
        return eta_min
    return half_wave(base, eta_min, t - warmup_steps, total_steps - warmup_steps)


def polynomial_lr(t, base, total_iters=5, power=1.0, **floor):
    eta_min = floor_of(base, **floor)
    if t >= total_iters:
        return eta_min
    return eta_min + (base - eta_min) * (1 - t / total_iters) ** power


def linear_lr(t, base, start_factor=1.0 / 3, end_factor=1.0, total_iters=5):
    if t >= total_iters:
        return base * end_factor
    return base * (start_factor + (end_factor - start_factor) * t / total_iters)


def constant_lr(t, base, factor=1.0 / 3, total_iters=5):
    return base * factor if t < total_iters else base


def warmup_scheduler(t, base, warmup_epochs=5, warmup_start_lr=0.0):
    if t >= warmup_epochs:
        return base
    return warmup_start_lr + (base - warmup_start_lr) * t / warmup_epochs


def wsd(
    t,
    base,
    warmup_steps=1000,
    stay_steps=8000,
    decay_steps=1000,
    warmup_start_lr=0.0,
    decay_strategy="linear",
    cycles=1,
    power=1.0,
    **floor,
):
    eta_min = floor_of(base, **floor)
    cycle = min(t // (warmup_steps + stay_steps + decay_steps), cycles - 1)
    t -= cycle * (warmup_steps + stay_steps + decay_steps)
    if t < warmup_steps:
        return warmup_start_lr + (base - warmup_start_lr) * t / warmup_steps
    x = (t - warmup_steps - stay_steps) / decay_steps
    if x <= 0:
        return base
    if x >= 1:
        return eta_min
    weight = {
        "linear": 1 - x,
        "cos": (1 + math.cos(math.pi * x)) / 2,
        "sqrt": 1 - math.sqrt(x),
        "polynomial": (1 - x) ** power,
        "exponential": 0.0,
    }[decay_strategy]
    if decay_strategy == "exponential":
        return base * (eta_min / base) ** x
    return eta_min + (base - eta_min) * weight


def cyclic_lr(
    t,
    base,
    max_lr=1e-2,
    step_size_up=2000,
    step_size_down=None,
    mode="triangular",
    gamma=1.0,
    scale_fn=None,
    scale_mode="cycle",
):
    if step_size_down is None:
        step_size_down = step_size_up
    cycle, position = divmod(t, step_size_up + step_size_down)
    if position <= step_size_up:
        height = position / step_size_up
    else:
        height = 1 - (position - step_size_up) / step_size_down
    if scale_fn is not None:
        scale = float(scale_fn(cycle + 1 if scale_mode == "cycle" else t))
    else:
        scale = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": gamma**t}[mode]
    return base + (max_lr - base) * height * scale


def one_cycle_lr(
    t,
    base,
    total_steps=None,
    epochs=None,
    steps_per_epoch=None,
    pct_start=0.3,
    anneal_strategy="cos",
    div_factor=25.0,
    final_div_factor=1e4,
    **floor,
):
    if total_steps is None:
        total_steps = epochs * steps_per_epoch
    peak = pct_start * total_steps
    first = base / div_factor
    last = floor_of(base, **floor) if floor else base / final_div_factor
    if t <= peak:
        return first + (base - first) * t / peak
    if t >= total_steps:
        return last
    if anneal_strategy == "cos":
        return half_wave(base, last, t - peak, total_steps - peak)
    return base + (last - base) * (t - peak) / (total_steps - peak)


def lambda_lr(t, base, lr_lambda):
    return base * float(lr_lambda(t))


Row = tuple[Any, Any, dict[str, Any], int]  # class, definition, arguments, length of its life


def slowly(epoch):
    return 1 / (1 + 0.05 * epoch)


LOOK_UPS: list[Row] = [
    (StepLR, step_lr, {}, 400),
    (StepLR, step_lr, {"step_size": 1, "gamma": 0.5}, 160),
    (StepLR, step_lr, {"step_size": 7, "gamma": 0.97}, 20_000),
    (StepLR, step_lr, {"step_size": 1, "gamma": 0.999}, 100_000),
    (StepLR, step_lr, {"step_size": 3, "gamma": 1}, 20),
    (StepLR, step_lr, {"step_size": LAST}, 10),
    (StepLR, step_lr, {"step_size": 2.4, "gamma": 0.97}, 3000),
    (StepLR, step_lr, {"step_size": 3002.4, "gamma": 0.97, "eta_min": 1e-3}, 20_000),
    (StepLR, step_lr, {"step_size": 100 / 3, "eta_min_ratio": 0.05}, 2000),
    (MultiStepLR, multi_step_lr, {}, 120),
    (MultiStepLR, multi_step_lr, {"milestones": [0, 1, 5, 80], "gamma": 0.2}, 100),
    (MultiStepLR, multi_step_lr, {"milestones": []}, 10),
    (MultiStepLR, multi_step_lr, {"milestones": [1.5, 3.0, 300 * 0.75], "eta_min": 1e-3}, 300),
    (MultiStepLR, multi_step_lr, {"eta_min_ratio": 0.02}, 100),
    (MultiStepLR, multi_step_lr, {"milestones": range(5, 1000), "gamma": 0.9}, 1100),
    (ConstantLR, constant_lr, {}, 10),
    (ConstantLR, constant_lr, {"factor": 0.0, "total_iters": 3}, 10),
    (ConstantLR, constant_lr, {"factor": 0.7, "total_iters": 0}, 10),
    (ConstantLR, constant_lr, {"factor": 0.7, "total_iters": 2.5}, 10),
]
SMOOTH: list[Row] = [
    (ExponentialLR, exponential_lr, {}, 2500),
    (ExponentialLR, exponential_lr, {"gamma": 0.5}, 200),
    (ExponentialLR, exponential_lr, {"gamma": 0.9995}, 200_000),
    (ExponentialLR, exponential_lr, {"gamma": 1.0}, 20),
    (ExponentialLR, exponential_lr, {"eta_min": 1e-3}, 200),
    (ExponentialLR, exponential_lr, {"eta_min_ratio": 0.01}, 200),
    (ExponentialDecayLR, exponential_decay_lr, {}, 10_000),
    (ExponentialDecayLR, exponential_decay_lr, {"staircase": True, "decay_steps": 7}, 20_000),
    (ExponentialDecayLR, exponential_decay_lr, {"decay_steps": 3, "transition_begin": 20}, 9000),
    (
        ExponentialDecayLR,
        exponential_decay_lr,
        {"decay_steps": 50, "decay_rate": 0.3, "end_value": 5e-4},
        1000,
    ),
    (
        ExponentialDecayLR,
        exponential_decay_lr,
        {"decay_steps": 10, "decay_rate": 1.5, "end_value": 8.0},
        200,
    ),
    (ExponentialDecayLR, exponential_decay_lr, {"decay_steps": 10, "decay_rate": 2.0}, 3000),
    (
        ExponentialDecayLR,
        exponential_decay_lr,
        {"decay_steps": 3, "decay_rate": 2.0, "staircase": True},
        3000,
    ),
    (ExponentialDecayLR, exponential_decay_lr, {"decay_rate": 1.0, "end_value": 1e-3}, 3000),
    (
        ExponentialDecayLR,
        exponential_decay_lr,
        {"decay_steps": 7.5, "decay_rate": 0.5, "staircase": True, "end_value_ratio": 0.1},
        100,
    ),
    (CosineAnnealingLR, cosine_annealing_lr, {}, 120),
    (CosineAnnealingLR, cosine_annealing_lr, {"T_max": 1}, 4),
    (CosineAnnealingLR, cosine_annealing_lr, {"T_max": 5003, "eta_min": 1e-3}, 6000),
    (CosineAnnealingLR, cosine_annealing_lr, {"T_max": 98.4, "eta_min_ratio": 0.1}, 120),
    (CosineAnnealingWarmRestarts, cosine_annealing_warm_restarts, {}, 100),
    (CosineAnnealingWarmRestarts, cosine_annealing_warm_restarts, {"T_0": 7, "T_mult": 2}, 2000),
    (
        CosineAnnealingWarmRestarts,
        cosine_annealing_warm_restarts,
        {"T_0": 1, "T_mult": 3, "eta_min": 1e-3},
        3000,
    ),
    (CosineAnnealingWarmRestarts, cosine_annealing_warm_restarts, {"T_0": 49}, 500),
    (
        CosineAnnealingWarmRestarts,
        cosine_annealing_warm_restarts,
        {"T_0": 49, "eta_min": 1e-3, "decay": 0.7},
        3000,
    ),
    (
        CosineAnnealingWarmRestarts,
        cosine_annealing_warm_restarts,
        {"T_0": 7, "T_mult": 2, "eta_min": 5e-4, "decay": 0.3},
        3000,
    ),
    (CosineAnnealingWarmRestarts, cosine_annealing_warm_restarts, {"T_0": 1900 / 3}, 1900),
    (
        CosineAnnealingWarmRestarts,
        cosine_annealing_warm_restarts,
        {"T_0": 2.5, "T_mult": 2, "eta_min_ratio": 0.1, "decay": 0.5},
        300,
    ),
    (InverseSqrtLR, inverse_sqrt_lr, {}, 20_000),
    (InverseSqrtLR, inverse_sqrt_lr, {"warmup_steps": 49, "warmup_start_lr": 1e-4}, 2000),
    (InverseSqrtLR, inverse_sqrt_lr, {"warmup_steps": 98, "timescale": 7}, 2000),
    (InverseSqrtLR, inverse_sqrt_lr, {"warmup_steps": 0}, 20_000),
    (InverseSqrtLR, inverse_sqrt_lr, {"warmup_steps": 0, "timescale": 1}, 200),
    (InverseSqrtLR, inverse_sqrt_lr, {"warmup_steps": 100, "eta_min": 1e-3}, 20_000),
    (InverseSqrtLR, inverse_sqrt_lr, {"warmup_steps": 99.5, "eta_min_ratio": 0.3}, 2000),
    (InverseTimeDecayLR, inverse_time_decay_lr, {}, 10_000),
    (InverseTimeDecayLR, inverse_time_decay_lr, {"decay_steps": 49, "decay_rate": 0.3}, 2000),
    (
        InverseTimeDecayLR,
        inverse_time_decay_lr,
        {"decay_steps": 7, "decay_rate": 0.4, "staircase": True},
        2000,
    ),
    (InverseTimeDecayLR, inverse_time_decay_lr, {"decay_rate": 0}, 20),
    (InverseTimeDecayLR, inverse_time_decay_lr, {"decay_steps": 9, "eta_min": 1e-3}, 2000),
    (
        InverseTimeDecayLR,
        inverse_time_decay_lr,
        {"decay_steps": 2.5, "staircase": True, "eta_min_ratio": 0.1},
        200,
    ),
    *(
        (PiecewiseLinearSchedule, piecewise_linear_schedule, arguments, 1100)
        for arguments in (
            {"boundaries": [0, 49, 147, 1000], "values": [0.0, 1.0, 0.3, 0.0]},
            {"boundaries": [15, 30, 31], "values": [0.5, 1, 2]},
            {"boundaries": [98], "values": [0.3]},
            {"boundaries": [49, 98], "values": [0.3, 0.7]},
        )
    ),
    (WarmupCosineSchedule, warmup_cosine_schedule, {}, 11_000),
    (
        WarmupCosineSchedule,
        warmup_cosine_schedule,
        {"warmup_steps": 49, "total_steps": 1000, "warmup_start_lr": 1e-4, "eta_min": 1e-3},
        1200,
    ),
    (WarmupCosineSchedule, warmup_cosine_schedule, {"warmup_steps": 0, "total_steps": 98}, 110),
    (
        WarmupCosineSchedule,
        warmup_cosine_schedule,
        {"warmup_steps": 10, "total_steps": 10, "eta_min_ratio": 0.5},
        20,
    ),
    (
        WarmupCosineSchedule,
        warmup_cosine_schedule,
        {"warmup_steps": 2.5, "total_steps": 98.4, "eta_min_ratio": 0.1},
        110,
    ),
    (PolynomialLR, polynomial_lr, {}, 10),
    (PolynomialLR, polynomial_lr, {"total_iters": 98, "power": 2.0}, 110),
    (PolynomialLR, polynomial_lr, {"total_iters": 3000, "power": 0.9}, 3100),
    (PolynomialLR, polynomial_lr, {"total_iters": 4000, "power": 0.9, "eta_min": 1e-4}, 4100),
    (PolynomialLR, polynomial_lr, {"total_iters": 97.5, "power": 2, "eta_min_ratio": 0.1}, 110),
    (LinearLR, linear_lr, {}, 10),
    (LinearLR, linear_lr, {"start_factor": 1.0, "end_factor": 0.0, "total_iters": 98}, 110),
    (LinearLR, linear_lr, {"start_factor": 0.01, "total_iters": 1000}, 1100),
    (LinearLR, linear_lr, {"end_factor": 0.5, "total_iters": 0}, 10),
    (WarmupScheduler, warmup_scheduler, {}, 10),
    (WarmupScheduler, warmup_scheduler, {"warmup_epochs": 98, "warmup_start_lr": 1e-4}, 110),
    (WarmupScheduler, warmup_scheduler, {"warmup_epochs": 20, "warmup_start_lr": 0.5}, 30),
    (WarmupScheduler, warmup_scheduler, {"warmup_epochs": 0}, 10),
    (WSD, wsd, {}, 11_000),
    *(
        (
            WSD,
            wsd,
            {
                "warmup_steps": 49,
                "stay_steps": 100,
                "decay_steps": 998,
                "warmup_start_lr": 1e-4,
                "eta_min": 1e-3,
                "decay_strategy": strategy,
                "power": 3.0,
            },
            1300,
        )
        for strategy in ("linear", "cos", "sqrt", "exponential", "polynomial")
    ),
    (WSD, wsd, {"warmup_steps": 0, "stay_steps": 0, "decay_steps": 1}, 4),
    (WSD, wsd, {"warmup_steps": 0, "stay_steps": 0, "decay_steps": 1, "cycles": 3}, 6),
    (
        WSD,
        wsd,
        {"warmup_steps": 9, "stay_steps": 30, "decay_steps": 10, "eta_min": 1e-3, "cycles": 4},
        220,
    ),
    (
        WSD,
        wsd,
        {"warmup_steps": 2.5, "stay_steps": 7, "decay_steps": 9, "eta_min_ratio": 0.1},
        30,
    ),
    (CyclicLR, cyclic_lr, {}, 13_000),
    (CyclicLR, cyclic_lr, {"max_lr": 0.5, "step_size_up": 49, "step_size_down": 98}, 600),
    (CyclicLR, cyclic_lr, {"max_lr": 0.5, "step_size_up": 30, "mode": "triangular2"}, 5000),
    (
        CyclicLR,
        cyclic_lr,
        {"max_lr": 0.5, "step_size_up": 9, "mode": "exp_range", "gamma": 0.99},
        3000,
    ),
    (CyclicLR, cyclic_lr, {"max_lr": 0.5, "step_size_up": 9, "scale_fn": slowly}, 500),
    (
        CyclicLR,
        cyclic_lr,
        {"max_lr": 0.5, "step_size_up": 9, "scale_fn": slowly, "scale_mode": "iterations"},
        500,
    ),
    (OneCycleLR, one_cycle_lr, {"total_steps": 1000}, 1100),
    (OneCycleLR, one_cycle_lr, {"epochs": 7, "steps_per_epoch": 14}, 110),
    (OneCycleLR, one_cycle_lr, {"epochs": 1, "steps_per_epoch": 98}, 110),
    (OneCycleLR, one_cycle_lr, {"epochs": 98, "steps_per_epoch": 1}, 110),
    (OneCycleLR, one_cycle_lr, {"total_steps": 98, "anneal_strategy": "linear"}, 110),
    (
        OneCycleLR,
        one_cycle_lr,
        {"total_steps": 100, "pct_start": 0.29, "div_factor": 1.0, "final_div_factor": 3},
        110,
    ),
    (OneCycleLR, one_cycle_lr, {"total_steps": 1, "pct_start": 0.99}, 4),
    (OneCycleLR, one_cycle_lr, {"total_steps": 98, "eta_min": 1e-4}, 110),
    (OneCycleLR, one_cycle_lr, {"total_steps": 97.5, "eta_min_ratio": 0.1}, 110),
    (LambdaLR, lambda_lr, {"lr_lambda": lambda epoch: 0.95**epoch}, 200),
    (LambdaLR, lambda_lr, {"lr_lambda": slowly}, 1000),
]
SCHEDULES = [(*row, 0) for row in LOOK_UPS] + [(*row, 1) for row in SMOOTH]
ONE_OF_EACH = list({row[0]: row for row in SCHEDULES}.values())
BASES = [0.1, 0.03, 1e-3]


def names(rows):
    return [f"{row[0].__name__}-{','.join(map(str, row[2]))}" for row in rows]


def rounded(rates):
    """Round to a rate: to float32, and to 0 below its normal numbers."""
    rates = np.array(rates)
    return np.where(rates < np.finfo(np.float32).tiny, 0.0, rates).astype(np.float32)


def units_apart(rates, others):
    """Count the float32 numbers between two that are not negative."""
    return np.abs(np.asarray(rates).view(np.int32) - np.asarray(others).view(np.int32))


@pytest.mark.parametrize(
    ("cls", "reference", "arguments", "epochs", "tolerance"), SCHEDULES, ids=names(SCHEDULES)
)
def test_rates_are_those_of_the_definition_however_they_are_asked_for(
    cls, reference, arguments, epochs, tolerance
):
    scheduler = cls(BASES, **arguments)
    asked = np.append(np.arange(epochs), [LAST - 1, LAST])
    expected = rounded([[reference(int(t), base, **arguments) for base in BASES] for t in asked])

    on_host = scheduler.lr_at(asked)
    assert on_host.dtype == np.float32
    assert units_apart(on_host, expected).max() <= tolerance

    compiled = jax.jit(scheduler.lr_at)(asked.astype(np.int32))
    np.testing.assert_array_equal(compiled, on_host)

    for index in {*range(0, epochs, 1 + epochs // 20), epochs - 1, epochs + 1}:
        np.testing.assert_array_equal(scheduler.lr_at(int(asked[index])), on_host[index])


@pytest.mark.parametrize("row", ONE_OF_EACH, ids=names(ONE_OF_EACH))
def test_rates_and_their_gradients_are_finite_with_traced_base_rates(row):
    cls, _, arguments, epochs, _ = row
    asked = np.array([0, 1, epochs // 2, epochs, LAST], np.int32)

    def rates(bases):
        return cls(bases, **arguments).lr_at(asked)

    bases = jnp.array([0.5, 0.0])
    values, slopes = jax.jit(lambda b: (rates(b), jax.jacobian(rates)(b)))(bases)
    np.testing.assert_array_equal(values, cls([0.5, 0.0], **arguments).lr_at(asked))
    assert np.isfinite(values).all()
    assert np.isfinite(slopes).all()
    assert (np.asarray(values) >= 0).all()


UNDER_X64 = [(*row, 0) for row in LOOK_UPS] + [(*row[:4], 4) for row in ONE_OF_EACH]


@pytest.mark.parametrize("row", UNDER_X64, ids=names(UNDER_X64))
def test_host_and_compiled_rates_agree_under_x64(row):
    cls, _, arguments, epochs, tolerance = row
    with jax.enable_x64(True):
        scheduler = cls(BASES, **arguments)
        asked = np.arange(min(epochs, 3000))
        on_host = np.asarray(scheduler.lr_at(asked))
        compiled = np.asarray(jax.jit(scheduler.lr_at)(asked))
    assert on_host.dtype == compiled.dtype == np.float64
    np.testing.assert_array_max_ulp(on_host, compiled, tolerance)


OTHER_RATES = {"max_lr", "eta_min", "warmup_start_lr", "end_value"}
MULTIPLIERS = [row for row in SCHEDULES if row[0] is not CyclicLR and not OTHER_RATES & set(row[2])]


@pytest.mark.parametrize("row", MULTIPLIERS, ids=names(MULTIPLIERS))
def test_a_base_rate_of_zero_stays_zero_where_no_other_rate_is_given(row):
    cls, _, arguments, epochs, _ = row
    assert not cls(0.0, **arguments).lr_at(np.arange(epochs)).any()


# Drop-in

OURS: dict[str, Any] = {
    cls.__name__: cls
    for cls in [
        StepLR,
        MultiStepLR,
        ExponentialLR,
        ExponentialDecayLR,
        CosineAnnealingLR,
        CosineAnnealingWarmRestarts,
        PolynomialLR,
        LinearLR,
        ConstantLR,
        WarmupScheduler,
        WarmupCosineSchedule,
        CyclicLR,
        OneCycleLR,
    ]
}


@pytest.mark.parametrize("name", OURS)
def test_parameters_and_their_order_and_defaults_are_those_of_braintools(name):
    def parameters(cls):
        signature = inspect.signature(cls.__init__)
        return [(p.name, p.default, p.kind) for p in signature.parameters.values()]

    theirs = parameters(getattr(braintools.optim, name))
    ours = parameters(OURS[name])
    assert ours[: len(theirs)] == theirs
    assert [n for n, default, _ in ours[len(theirs) :] if default is inspect.Parameter.empty] == []


DEFAULTS: dict[Any, dict[str, Any]] = {
    WSD: {
        "base_lr": 1e-3,
        "warmup_steps": 1000,
        "stay_steps": 8000,
        "decay_steps": 1000,
        "warmup_start_lr": 0.0,
        "eta_min": 0.0,
        "decay_strategy": "linear",
        "cycles": 1,
        "power": 1.0,
        "eta_min_ratio": None,
    },
    InverseSqrtLR: {
        "base_lr": 1e-3,
        "warmup_steps": 1000,
        "timescale": None,
        "warmup_start_lr": 0.0,
        "eta_min": 0.0,
        "eta_min_ratio": None,
    },
    InverseTimeDecayLR: {
        "base_lr": 1e-3,
        "decay_steps": 1000,
        "decay_rate": 1.0,
        "staircase": False,
        "eta_min": 0.0,
        "eta_min_ratio": None,
    },
    LambdaLR: {},
    PiecewiseLinearSchedule: {},
    brainsched.PerUpdate: {"staircase": False},
    brainsched.Branch: {
        "end_lr": None,
        "strategy": "linear",
        "last_epoch": None,
        "power": 1.0,
        "end_lr_ratio": None,
    },
    brainsched.Extension: {"last_epoch": None},
}


@pytest.mark.parametrize("cls", DEFAULTS)
def test_defaults_of_schedules_that_braintools_lacks(cls):
    found = {
        name: parameter.default
        for name, parameter in inspect.signature(cls).parameters.items()
        if parameter.default is not parameter.empty
    }
    assert found == {"last_epoch": 0} | DEFAULTS[cls]


def test_every_schedule_has_its_defaults_tested():
    elsewhere = {brainsched.PiecewiseConstantSchedule, brainsched.ReduceLROnPlateau}
    without = {brainsched.SequentialLR, brainsched.ChainedScheduler}
    found = (getattr(brainsched, name) for name in brainsched.__all__)
    schedules = {
        cls for cls in found if isinstance(cls, type) and issubclass(cls, brainsched.LRScheduler)
    }
    assert schedules - {brainsched.LRScheduler} == {*OURS.values(), *DEFAULTS} | elsewhere | without


@pytest.mark.parametrize("name", OURS)
def test_every_argument_is_kept_under_its_name(name):
    arguments = {"total_steps": 10} if name == "OneCycleLR" else {}
    scheduler = OURS[name](**arguments, last_epoch=3)
    config = scheduler.config
    assert [*config][1:] == [*inspect.signature(OURS[name].__init__).parameters][1:]
    again = OURS[name](**{key: value for key, value in config.items() if key != "class"})
    assert again.config == config
    np.testing.assert_array_equal(again.lr_at(range(20)), scheduler.lr_at(range(20)))


# Numbers that braintools 0.3.0's documentation shows
DOCUMENTED = [
    (
        StepLR(base_lr=0.1, step_size=30, gamma=0.1),
        {0: 0.1, 29: 0.1, 30: 0.01, 59: 0.01, 60: 0.001, 89: 0.001},
    ),
    (StepLR(base_lr=0.1, step_size=5, gamma=0.5), {15: 0.0125}),
    (
        MultiStepLR(base_lr=0.1, milestones=[30, 80], gamma=0.1),
        {29: 0.1, 30: 0.01, 79: 0.01, 80: 0.001},
    ),
    (
        ExponentialLR(base_lr=0.1, gamma=0.95),
        {0: 0.1, 5: 0.077378, 10: 0.059874, 15: 0.046329},
    ),
    (ExponentialLR(base_lr=0.001, gamma=0.99), {100: 0.000366}),
    (
        ExponentialDecayLR(base_lr=0.1, decay_steps=1000, decay_rate=0.96),
        {0: 0.1, 1000: 0.096, 2000: 0.09216, 3000: 0.088474, 4000: 0.084935},
    ),
    (
        ExponentialDecayLR(base_lr=0.1, decay_steps=1000, decay_rate=0.5, staircase=True),
        {0: 0.1, 500: 0.1, 1000: 0.05, 1500: 0.05, 2000: 0.025, 2500: 0.025, 3000: 0.0125},
    ),
    (
        ExponentialDecayLR(base_lr=0.01, decay_steps=1000, decay_rate=0.95, transition_begin=2000),
        {0: 0.01, 1000: 0.01, 2000: 0.01, 3000: 0.0095, 4000: 0.009025},
    ),
    (
        CosineAnnealingLR(base_lr=0.1, T_max=100, eta_min=0),
        {0: 0.1, 25: 0.085355, 50: 0.05, 75: 0.014645},
    ),
    (
        PolynomialLR(base_lr=0.1, total_iters=100, power=1.0),
        {0: 0.1, 1: 0.099, 2: 0.098, 99: 0.001, 100: 0.0},
    ),
    (
        PolynomialLR(base_lr=0.1, total_iters=100, power=2.0),
        {25: 0.05625, 50: 0.025, 75: 0.00625},
    ),
    (LinearLR(), {0: 0.000333, 5: 0.001}),
    (
        LinearLR(start_factor=1.0, end_factor=0.01, total_iters=20),
        {0: 0.001, 20: 0.00001, 29: 0.00001},
    ),
    (ConstantLR(), {0: 0.000333, 4: 0.000333, 5: 0.001}),
    (
        ConstantLR(base_lr=0.001, factor=0.5, total_iters=10),
        {0: 0.0005, 9: 0.0005, 10: 0.001},
    ),
    (WarmupScheduler(base_lr=0.1, warmup_epochs=10), {0: 0.0, 5: 0.05, 10: 0.1, 49: 0.1}),
    (
        CyclicLR(base_lr=0.0001, max_lr=0.001, step_size_up=1000, mode="triangular2"),
        {0: 0.0001, 1000: 0.001, 2000: 0.0001, 3000: 0.00055, 4000: 0.0001, 5000: 0.000325},
    ),
    (
        CyclicLR(base_lr=0.0001, max_lr=0.001, step_size_up=500, step_size_down=1500),
        {0: 0.0001, 500: 0.001, 1250: 0.00055, 2000: 0.0001, 2500: 0.001},
    ),
    (
        OneCycleLR(
            max_lr=0.1, total_steps=5000, pct_start=0.4, div_factor=10, final_div_factor=100
        ),
        {0: 0.01, 2000: 0.1, 5000: 0.001, 9000: 0.001},
    ),
    (
        CosineAnnealingWarmRestarts(base_lr=0.01, T_0=100, T_mult=2, eta_min=0.0001),
        dict.fromkeys([0, 100, 300, 700, 1500, 3100], 0.01),
    ),
    (
        CosineAnnealingWarmRestarts(base_lr=0.1, T_0=50, eta_min=0.001),
        dict.fromkeys([0, 50, 100, 150], 0.1),
    ),
    (
        WarmupCosineSchedule(0.001, 10_000, 100_000, warmup_start_lr=1e-6, eta_min=1e-5),
        {0: 1e-6, 10_000: 0.001, 100_000: 1e-5},
    ),
]


@pytest.mark.parametrize(
    ("scheduler", "documented"), DOCUMENTED, ids=lambda value: type(value).__name__
)
def test_documented_numbers_are_met(scheduler, documented):
    for epoch, rate in documented.items():
        assert scheduler.lr_at(epoch).item() == pytest.approx(rate, abs=5e-7)


# Exact ends, and no cancellation


def test_ends_and_peaks_are_exact_in_float64_too():
    # 49 * (1 / 49) is not 1 in float64, and XLA divides by a constant in that way.
    cases = [
        (CosineAnnealingLR(0.3, 49, 0.1), {0: 0.3, 49: 0.1}),
        (WarmupCosineSchedule(0.3, 49, 98, 0.1, 0.2), {0: 0.1, 49: 0.3, 98: 0.2}),
        *(
            (WSD(0.3, 49, 49, 49, 0.1, 0.2, strategy), {0: 0.1, 49: 0.3, 98: 0.3, 147: 0.2})
            for strategy in STRATEGIES
        ),
        (LinearLR(1.0, 0.3, 0.7, 49), {0: 0.3, 49: 0.7}),
        (PolynomialLR(0.3, 49, 0.9, eta_min=0.1), {0: 0.3, 49: 0.1}),
        (CyclicLR(0.3, 0.7, 49, 98), {0: 0.3, 49: 0.7, 147: 0.3}),
        (OneCycleLR(0.7, 98, pct_start=0.5, div_factor=4, final_div_factor=8), {49: 0.7}),
        (CosineAnnealingWarmRestarts(0.3, 49, decay=0.5), {0: 0.3, 49: 0.15, 98: 0.075}),
        (WSD(0.3, 49, 49, 49, 0.1, 0.1, cycles=2), {0: 0.1, 49: 0.3, 147: 0.1, 196: 0.3, 294: 0.1}),
        (InverseSqrtLR(0.3, 49, warmup_start_lr=0.1), {0: 0.1, 49: 0.3, 196: 0.15}),
        (PiecewiseLinearSchedule(1.0, [3, 52, 55], [0.1, 0.3, 0.7]), {3: 0.1, 52: 0.3, 55: 0.7}),
    ]
    for scheduler, ends in cases:
        config = {key: value for key, value in scheduler.config.items() if key != "class"}
        with jax.enable_x64(True):
            scheduler = type(scheduler)(**config)
            for epoch, rate in ends.items():
                assert scheduler.lr_at(epoch).item() == rate
                assert jax.jit(scheduler.lr_at)(epoch).item() == rate


def test_the_end_of_a_long_cosine_keeps_its_digits():
    length = 10**6
    expected = np.float32(0.1 * math.sin(math.pi / (2 * length)) ** 2)
    naive = np.float32(0.1 * (1 + math.cos(math.pi * (length - 1) / length)) / 2)
    scheduler = CosineAnnealingLR(0.1, length)
    assert scheduler.lr_at(length - 1).item() == expected
    assert jax.jit(scheduler.lr_at)(length - 1).item() == expected
    assert units_apart(naive, expected) > 10


@pytest.mark.parametrize(
    "scheduler",
    [
        ExponentialLR(0.5, 1 - 2**-26),
        StepLR(0.5, 1, 1 - 2**-26),
        ExponentialDecayLR(0.5, 1, 1 + 2**-26),
        ExponentialDecayLR(0.5, 1, 1 + 2**-26, staircase=True),
    ],
    ids=["calculated", "looked-up", "calculated, rising", "looked-up, rising"],
)
def test_powers_near_one_are_right_at_any_epoch(scheduler):
    logarithm = math.log1p(2**-26 if type(scheduler) is ExponentialDecayLR else -(2**-26))
    asked = np.random.default_rng(0).integers(0, LAST, 2000).astype(np.int32)
    expected = rounded([[0.5 * math.exp(int(t) * logarithm)] for t in asked])
    on_host = scheduler.lr_at(asked)
    assert units_apart(on_host, expected).max() <= 1
    np.testing.assert_array_equal(jax.jit(scheduler.lr_at)(asked), on_host)


def test_ten_thousand_milestones_make_the_same_program_as_three():
    def operations(count):
        scheduler = MultiStepLR(0.1, range(1, count + 1), 0.5)
        text = jax.jit(scheduler.lr_at).lower(jnp.asarray(0)).as_text()
        return sum(" = " in line and "constant" not in line for line in text.splitlines())

    assert operations(10_000) == operations(3)


def test_a_peak_that_decays_stays_on_its_side_of_eta_min():
    scheduler = CosineAnnealingWarmRestarts(0.3, 10, eta_min=0.1, decay=0.5)
    np.testing.assert_allclose(scheduler.lr_at([0, 10, 20, 300])[:, 0], [0.3, 0.2, 0.15, 0.1])


@pytest.mark.parametrize("warmup_steps", [4000, 0])
def test_inverse_square_root_is_noams_formula_and_that_of_t5(warmup_steps):
    """Noam: (d W)**-0.5 * min(sqrt(W / t), t / W). T5: 1 / sqrt(max(t, k)), k = 10,000."""
    t = np.arange(1, 30_001)
    if warmup_steps:
        base = (512 * warmup_steps) ** -0.5
        rates = InverseSqrtLR(base, warmup_steps).lr_at(t)
        expected = 512**-0.5 * np.minimum(t**-0.5, t * warmup_steps**-1.5)
    else:
        parts = [ConstantLR(0.01, 1.0, 0), InverseSqrtLR(0.01, 0)]
        rates = SequentialLR(parts, [10_000]).lr_at(t)
        expected = 1 / np.sqrt(np.maximum(t, 10_000))
    np.testing.assert_allclose(rates[:, 0], expected, rtol=1e-7)


def test_lines_through_knots_are_those_of_numpy_and_of_optax_between_whole_epochs_too():
    boundaries, values = [4, 10, 30], [0.2, 1.0, 0.1]
    scheduler = PiecewiseLinearSchedule(0.5, boundaries, values)
    asked = np.linspace(0, 40, 161)
    expected = rounded(0.5 * np.interp(asked, boundaries, values))
    assert units_apart(scheduler.lr_at(asked)[:, 0], expected).max() <= 1
    theirs = optax.piecewise_interpolate_schedule("linear", 0.1, {4: 1.0, 10: 5.0, 30: 0.1})
    counts = jnp.arange(40)
    np.testing.assert_allclose(scheduler.lr_at(counts)[:, 0], jax.vmap(theirs)(counts), rtol=1e-6)


def test_a_line_of_one_epoch_goes_all_the_way_within_it():
    scheduler = PiecewiseLinearSchedule(1.0, [2, 3, 5], [0.25, 0.75, 0.5])
    asked = [2, 2.25, 2.5, 2.75, 3, 4]
    assert scheduler.lr_at(asked).ravel().tolist() == [0.25, 0.375, 0.5, 0.625, 0.75, 0.625]


@pytest.mark.parametrize(
    ("decay_rate", "end_value"), [(0.5, 0.25), (1.0, 0.25), (1.0, 3.0), (2.0, 0.25), (2.0, 3.0)]
)
def test_the_end_value_of_a_decay_bounds_it_as_in_optax(decay_rate, end_value):
    scheduler = ExponentialDecayLR(1.0, 10, decay_rate, end_value=end_value)
    theirs = optax.exponential_decay(1.0, 10, decay_rate, end_value=end_value)
    counts = jnp.arange(1, 40)  # optax has the first rate as it is
    np.testing.assert_allclose(scheduler.lr_at(counts)[:, 0], jax.vmap(theirs)(counts), rtol=1e-6)


def test_ten_thousand_knots_make_the_same_program_as_three():
    def operations(count):
        scheduler = PiecewiseLinearSchedule(0.1, range(count), [1.0] * count)
        text = jax.jit(scheduler.lr_at).lower(jnp.asarray(0)).as_text()
        return sum(" = " in line and "constant" not in line for line in text.splitlines())

    assert operations(10_000) == operations(3)


def test_a_cycle_of_wsd_begins_where_the_one_before_has_ended():
    scheduler = WSD(1.0, 2, 1, 2, warmup_start_lr=0.5, eta_min=0.25, cycles=2)
    expected = [0.5, 0.75, 1, 1, 0.625, 0.5, 0.75, 1, 1, 0.625, 0.25, 0.25]
    assert scheduler.lr_at(range(12)).ravel().tolist() == expected
    assert scheduler.stage_boundaries == [2, 3, 5, 7, 8]


def test_the_stages_of_a_rise_and_of_lines_end_at_their_boundaries():
    assert list(InverseSqrtLR(1.0, 4).stage_boundaries) == [4]
    assert list(PiecewiseLinearSchedule(1.0, [3, 9], [0.0, 1.0]).stage_boundaries) == [3, 9]


# Several groups


def test_a_column_of_lines_for_each_group():
    values = [[0.0, 1.0], [1.0, 0.5]]
    scheduler = PiecewiseLinearSchedule([0.5, 0.25], [0, 4], values)
    assert scheduler.lr_at([0, 1, 4]).tolist() == [[0, 0.25], [0.125, 0.21875], [0.5, 0.125]]
    assert scheduler.max_groups == 2
    with pytest.raises(ValueError, match="base_lr has 3 entries, but the schedule has columns for"):
        PiecewiseLinearSchedule([0.1, 0.2, 0.3], [0, 4], values)


def test_an_upper_rate_for_each_group_and_the_last_one_for_the_rest():
    scheduler = CyclicLR([0.1, 0.2, 0.3], [0.5, 0.6], step_size_up=2)
    np.testing.assert_array_equal(scheduler.lr_at(2), np.array([0.5, 0.6, 0.6], np.float32))
    scheduler = CyclicLR(0.1, [0.5, 0.6], step_size_up=2)
    np.testing.assert_array_equal(scheduler.lr_at(2), np.array([0.5], np.float32))


def test_one_function_for_each_group():
    scheduler = LambdaLR([0.1, 0.2], [lambda epoch: 0.5**epoch, lambda epoch: 1.0])
    expected = np.array([[0.1, 0.2], [0.05, 0.2], [0.025, 0.2]], np.float32)
    np.testing.assert_array_equal(scheduler.lr_at(range(3)), expected)
    np.testing.assert_array_equal(jax.jit(scheduler.lr_at)(jnp.arange(3)), expected)
    assert scheduler.max_groups == 2


def test_a_function_is_given_one_float64_whatever_the_shape_of_the_epochs():
    seen = []

    def factor(epoch):
        seen.append((epoch.shape, epoch.dtype))
        return jnp.array([1.0, 0.5, 0.25])[jnp.minimum(epoch.astype(int), 2)]

    scheduler = LambdaLR(1.0, factor)
    rates = scheduler.lr_at(np.array([[0, 1], [2, 9]]))[..., 0]
    np.testing.assert_array_equal(rates, np.array([[1, 0.5], [0.25, 0.25]], np.float32))
    assert scheduler.lr_at([]).shape == (0, 1)
    assert set(seen) == {((), np.dtype(np.float64))}


def test_a_function_steps_on_the_host_and_in_compiled_code_alike():
    scheduler = LambdaLR(0.1, lambda epoch: jnp.exp(-0.1 * epoch))
    expected = scheduler.lr_at(range(6))[:, 0]
    seen = [scheduler.get_last_lr()[0]]
    for _ in range(5):
        scheduler.step()
        seen.append(scheduler.get_last_lr()[0])
    np.testing.assert_array_equal(np.array(seen), expected)
    assert scheduler.epoch == 5


def test_a_negative_multiplier_raises_on_the_host_and_is_zero_in_compiled_code():
    scheduler = LambdaLR([0.5, 0.25], [lambda epoch: 1.0, lambda epoch: 1.0 - epoch / 2])
    message = r"LambdaLR gives param group 1 the rate -0.125 at epoch 3: .*xp.maximum\(rates, 0\)"
    with pytest.raises(ValueError, match=message):
        scheduler.lr_at([[1, 2], [3, 4]])
    for _ in range(2):
        scheduler.step()
    with pytest.raises(ValueError, match=message):
        scheduler.step()
    assert (scheduler.epoch, scheduler.applied_rates) == (2, [0.5, 0.0])
    brainstate.transform.jit(scheduler.step)()
    assert (scheduler.epoch, scheduler.applied_rates) == (3, [0.5, 0.0])
    assert jax.jit(scheduler.lr_at)(4).tolist() == [0.5, 0.0]


def test_a_multiplier_that_is_negative_by_rounding_is_zero_everywhere():
    scheduler = LambdaLR(0.5, lambda epoch: 0.3 - epoch * 0.1)
    assert 0.3 - 3 * 0.1 < 0
    assert scheduler.lr_at(3).item() == jax.jit(scheduler.lr_at)(3).item() == 0.0


def test_a_schedule_with_a_function_is_built_inside_compiled_code():
    rates = jax.jit(lambda base: LambdaLR(base, slowly).lr_at(20))(0.5)
    np.testing.assert_array_equal(rates, LambdaLR(0.5, slowly).lr_at(20))
    rates = jax.jit(lambda t: LambdaLR(0.5, slowly).lr_at(t))(20)
    np.testing.assert_array_equal(rates, LambdaLR(0.5, slowly).lr_at(20))


# Rates other than the base rate


@pytest.mark.parametrize(
    ("build", "epoch", "slope"),
    [
        (lambda rate: CosineAnnealingLR(0.5, 4, eta_min=rate), 2, 0.5),
        (lambda rate: CosineAnnealingWarmRestarts(0.5, 4, eta_min=rate), 6, 0.5),
        (lambda rate: WarmupCosineSchedule(0.5, 4, 8, warmup_start_lr=rate), 1, 0.75),
        (lambda rate: WarmupCosineSchedule(0.5, 4, 8, eta_min=rate), 6, 0.5),
        (lambda rate: WarmupScheduler(0.5, 4, warmup_start_lr=rate), 1, 0.75),
        (lambda rate: WSD(0.5, 4, 4, 4, eta_min=rate), 11, 0.75),
        (lambda rate: WSD(0.5, 4, 4, 4, eta_min=rate, cycles=2), 23, 0.75),
        (lambda rate: InverseSqrtLR(0.5, 4, warmup_start_lr=rate), 1, 0.75),
        (lambda rate: PiecewiseLinearSchedule(0.5, [0, 4], [0, rate]), 3, 0.375),
        (lambda rate: CyclicLR(0.5, rate, 4), 3, 0.75),
        (lambda rate: OneCycleLR(rate, 8, pct_start=0.5), 4, 1.0),
        (lambda rate: ExponentialDecayLR(0.5, 1, 0.1, end_value=rate), 9, 1.0),
    ],
)
def test_every_rate_may_be_traced(build, epoch, slope):
    given = np.float32(0.1)
    rate, by_rate = jax.jit(jax.value_and_grad(lambda r: build(r).lr_at(epoch)[0]))(given)
    assert rate == build(float(given)).lr_at(epoch)
    assert build(jnp.asarray(given)).lr_at(epoch) == rate
    assert by_rate == pytest.approx(slope)
