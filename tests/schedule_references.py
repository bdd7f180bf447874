"""The documented definition of every schedule, in plain float64 arithmetic of one epoch, and rows.

A row of a new schedule is all that the tests of every schedule need.
"""

import math
from fractions import Fraction
from typing import Any

import numpy as np

from brainsched.schedules.cosine import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    WarmupCosineSchedule,
)
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
