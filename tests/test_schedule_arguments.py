"""Bad arguments of the schedules raise at once, and the message says what is accepted."""

from fractions import Fraction

import jax.numpy as jnp
import numpy as np
import pytest

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
from brainsched.schedules.plateau import ReduceLROnPlateau
from brainsched.schedules.polynomial import ConstantLR, LinearLR, PolynomialLR
from brainsched.schedules.steps import MultiStepLR, StepLR
from brainsched.schedules.warmup import WSD, WarmupScheduler

NAN, INF = float("nan"), float("inf")

# Every length, with the least that it may be
LENGTHS = [
    (StepLR, "step_size", 1),
    (ExponentialDecayLR, "decay_steps", 1),
    (ExponentialDecayLR, "transition_begin", 0),
    (CosineAnnealingLR, "T_max", 1),
    (CosineAnnealingWarmRestarts, "T_0", 1),
    (PolynomialLR, "total_iters", 1),
    (LinearLR, "total_iters", 0),
    (ConstantLR, "total_iters", 0),
    (WarmupScheduler, "warmup_epochs", 0),
    (WarmupCosineSchedule, "warmup_steps", 0),
    (WarmupCosineSchedule, "total_steps", 1),
    (CyclicLR, "step_size_up", 1),
    (CyclicLR, "step_size_down", 1),
    (OneCycleLR, "total_steps", 1),
    (WSD, "warmup_steps", 0),
    (WSD, "stay_steps", 0),
    (WSD, "decay_steps", 1),
    (InverseSqrtLR, "warmup_steps", 0),
    (InverseSqrtLR, "timescale", 1),
    (InverseTimeDecayLR, "decay_steps", 1),
]


@pytest.mark.parametrize(("cls", "name", "least"), LENGTHS)
def test_a_length_is_a_number_of_epochs_whole_or_not(cls, name, least):
    with pytest.raises(ValueError, match=f"^{name} must be finite and not negative, got -1"):
        cls(**{name: -1})
    with pytest.raises(ValueError, match=rf"^{name} must be at most 2\.147e\+09, got 2147483648"):
        cls(**{name: 2**31})
    for value in ("10", True, np.bool_(True), [10], None if least else "10"):
        if value is None and name in ("timescale", "step_size_down", "total_steps"):
            continue
        with pytest.raises(TypeError, match=f"^{name} must be a number, got"):
            cls(**{name: value})
    if least:
        with pytest.raises(ValueError, match=f"^{name} must be above 0, got 0"):
            cls(**{name: 0})
    arguments = {"warmup_steps": 0} if name == "total_steps" and cls is not OneCycleLR else {}
    for whole in (np.int64(10), np.array(10), 10, 20 / 2, Fraction(10)):
        kept = getattr(cls(**{name: whole}, **arguments), name)
        assert (type(kept), kept) == (int, 10)
    for number in (2.5, Fraction(5, 2), np.float32(2.5)):
        kept = getattr(cls(**{name: number}, **arguments), name)
        assert (type(kept), kept) == (float, 2.5)


@pytest.mark.parametrize(
    ("cls", "name"),
    [(WSD, "cycles"), (CosineAnnealingWarmRestarts, "T_mult"), (ReduceLROnPlateau, "patience")],
)
def test_a_number_of_times_is_whole(cls, name):
    assert getattr(cls(**{name: 6 / 2}), name) == 3
    with pytest.raises(ValueError, match=f"^{name} must be an integer, got 1.5"):
        cls(**{name: 1.5})
    with pytest.raises(
        ValueError, match=f"^{name} must be an integer from . to 2147483647, got -1"
    ):
        cls(**{name: -1})


# Every argument that is a number but no rate, with its interval and numbers outside of it
NUMBERS = [
    (StepLR, "gamma", r"\(0, 1\]", [0, 1.1]),
    (MultiStepLR, "gamma", r"\(0, 1\]", [0.0, 2]),
    (ExponentialLR, "gamma", r"\(0, 1\]", [0, 1.0001]),
    (ExponentialDecayLR, "decay_rate", r"\(0, inf\)", [0, 0.0]),
    (PolynomialLR, "power", r"\(0, inf\)", [0]),
    (LinearLR, "start_factor", r"\[0, 1\]", [1.5]),
    (LinearLR, "end_factor", r"\[0, 1\]", [2]),
    (ConstantLR, "factor", r"\[0, 1\]", [1.01]),
    (CyclicLR, "gamma", r"\(0, 1\]", [0, 1.1]),
    (OneCycleLR, "pct_start", r"\(0, 1\)", [0.0, 1, 30]),
    (OneCycleLR, "div_factor", r"\[1, inf\)", [0, 0.5]),
    (OneCycleLR, "final_div_factor", r"\[1, inf\)", [0, 0.99]),
    (CosineAnnealingWarmRestarts, "decay", r"\(0, 1\]", [0, 1.1]),
    (InverseTimeDecayLR, "decay_rate", r"\[0, inf\)", []),
]


@pytest.mark.parametrize(("cls", "name", "interval", "outside"), NUMBERS)
def test_a_number_is_finite_and_in_its_interval(cls, name, interval, outside):
    arguments = {"total_steps": 10} if cls is OneCycleLR else {}
    for value in outside:
        with pytest.raises(ValueError, match=f"^{name} must be a number in {interval}, got"):
            cls(**arguments, **{name: value})
    for value in (-0.5, NAN, INF, -INF):
        with pytest.raises(ValueError, match=f"^{name} must be finite and not negative, got"):
            cls(**arguments, **{name: value})
    for no_number in (True, "0.5", None, [0.5], 0.5j):
        with pytest.raises(TypeError, match=f"^{name} must be a number, got"):
            cls(**arguments, **{name: no_number})


RATES = [
    (CosineAnnealingLR, "eta_min"),
    (WarmupScheduler, "warmup_start_lr"),
    (ExponentialDecayLR, "end_value"),
]


@pytest.mark.parametrize(("cls", "name"), RATES)
def test_a_rate_is_finite_and_not_negative(cls, name):
    for value in (-1e-3, NAN, INF):
        with pytest.raises(ValueError, match=f"^{name} must be finite and not negative, got"):
            cls(**{name: value})
        with pytest.raises(ValueError, match=rf"^{name}\[1\] must be finite and not negative, got"):
            cls(**{name: [0.0, value]})
    for no_number in (True, "0.1", [0.1, "0.2"]):
        with pytest.raises(TypeError, match=rf"^{name}(\[1\])? must be a "):
            cls(**{name: no_number})


CHOICES = [
    (CyclicLR, "mode", "'triangular', 'triangular2', 'exp_range'"),
    (CyclicLR, "scale_mode", "'cycle', 'iterations'"),
    (OneCycleLR, "anneal_strategy", "'cos', 'linear'"),
    (WSD, "decay_strategy", "'linear', 'cos', 'sqrt', 'exponential', 'polynomial'"),
]


@pytest.mark.parametrize(("cls", "name", "listed"), CHOICES)
def test_a_choice_that_does_not_exist_is_told_those_that_do(cls, name, listed):
    arguments = {"total_steps": 10} if cls is OneCycleLR else {}
    with pytest.raises(ValueError, match=f"^{name} must be one of {listed}, got 'Cos'$"):
        cls(**arguments, **{name: "Cos"})
    for value in (None, 1, ["cos"]):
        with pytest.raises(TypeError, match=f"^{name} must be one of {listed}, got"):
            cls(**arguments, **{name: value})


BAD = [
    # milestones
    (
        MultiStepLR,
        {"milestones": [60, 30]},
        ValueError,
        r"milestones must be in ascending order .* got milestones\[1\] = 30 after 60",
    ),
    (
        MultiStepLR,
        {"milestones": [10, 30, 30]},
        ValueError,
        r"without repeats, got milestones\[2\] = 30",
    ),
    (MultiStepLR, {"milestones": [-1, 30]}, ValueError, r"milestones\[0\] must be finite and not"),
    (MultiStepLR, {"milestones": [1, True]}, TypeError, r"milestones\[1\] must be a number"),
    (MultiStepLR, {"milestones": 30}, TypeError, r"milestones must be a sequence of numbers"),
    (MultiStepLR, {"milestones": None}, TypeError, r"milestones must be a sequence of numbers"),
    # knots
    (
        PiecewiseLinearSchedule,
        {"base_lr": 0.1, "boundaries": [0, 30], "values": [1.0, 0.5, 0.1]},
        ValueError,
        r"values must have as many entries as there are boundaries: 2 for 2 boundaries, got 3",
    ),
    (
        PiecewiseLinearSchedule,
        {"base_lr": 0.1, "boundaries": [], "values": []},
        ValueError,
        r"boundaries must have at least one epoch, got an empty sequence",
    ),
    (
        PiecewiseLinearSchedule,
        {"base_lr": 0.1, "boundaries": [30, 0], "values": [1.0, 0.5]},
        ValueError,
        r"boundaries must be in ascending order .* got boundaries\[1\] = 0 after 30",
    ),
    (
        PiecewiseLinearSchedule,
        {"base_lr": 0.1, "boundaries": [0, 30], "values": [[1.0, 0.5], [0.1]]},
        ValueError,
        r"values must have rows of equal length, got 1 in values\[1\] and 2 in values\[0\]",
    ),
    (
        PiecewiseLinearSchedule,
        {"base_lr": 0.1, "boundaries": [0, 30], "values": [1.0, NAN]},
        ValueError,
        r"values\[1\] must be finite and not negative, got nan",
    ),
    # staircase
    (InverseTimeDecayLR, {"staircase": 1}, TypeError, r"staircase must be True or False, got 1"),
    (ExponentialDecayLR, {"staircase": 1}, TypeError, r"staircase must be True or False, got 1"),
    (ExponentialDecayLR, {"staircase": "no"}, TypeError, r"staircase must be True or False"),
    # steps that have to fit
    (
        WarmupCosineSchedule,
        {"warmup_steps": 200, "total_steps": 100},
        ValueError,
        r"warmup_steps must be at most total_steps, which is 100, got 200",
    ),
    # the steps of one cycle
    (OneCycleLR, {}, ValueError, r"needs total_steps or both epochs and steps_per_epoch"),
    (OneCycleLR, {"epochs": 5}, ValueError, r"needs total_steps or both epochs and steps_per_"),
    (OneCycleLR, {"steps_per_epoch": 5}, ValueError, r"needs total_steps or both epochs and"),
    (OneCycleLR, {"epochs": 0, "steps_per_epoch": 5}, ValueError, r"epochs must be above 0, got 0"),
    (
        OneCycleLR,
        {"epochs": 2**16, "steps_per_epoch": 2**16},
        ValueError,
        r"epochs \* steps_per_epoch must be at most 2\.147e\+09, got 4294967296",
    ),
    # upper rates
    (CyclicLR, {"max_lr": -1}, ValueError, r"max_lr must be finite and not negative, got -1"),
    (CyclicLR, {"max_lr": [0.1, NAN]}, ValueError, r"max_lr\[1\] must be finite"),
    (CyclicLR, {"max_lr": []}, ValueError, r"max_lr must have at least one rate"),
    (CyclicLR, {"max_lr": "1"}, TypeError, r"max_lr must be a sequence of numbers, or one number"),
    (OneCycleLR, {"max_lr": INF, "total_steps": 9}, ValueError, r"max_lr must be finite"),
    (OneCycleLR, {"max_lr": [0.1, True], "total_steps": 9}, TypeError, r"max_lr\[1\] must be a nu"),
    # functions
    (CyclicLR, {"scale_fn": 0.5}, TypeError, r"scale_fn must be a function of one argument, got"),
    (LambdaLR, {"base_lr": 0.1, "lr_lambda": 0.5}, TypeError, r"lr_lambda must be a sequence of"),
    (LambdaLR, {"base_lr": 0.1, "lr_lambda": []}, ValueError, r"lr_lambda must have at least one"),
    (
        LambdaLR,
        {"base_lr": 0.1, "lr_lambda": [abs, 0.5]},
        TypeError,
        r"lr_lambda\[1\] must be a function of one argument, got 0.5",
    ),
    (
        LambdaLR,
        {"base_lr": [0.1, 0.2], "lr_lambda": [lambda epoch: 1.0]},
        ValueError,
        r"param group 1 has no rate: the schedule has columns for 1 groups",
    ),
    (
        LambdaLR,
        {"base_lr": 0.1, "lr_lambda": lambda epoch: jnp.ones(3)},
        ValueError,
        r"the result of lr_lambda must be a scalar, got an array of shape \(3,\)",
    ),
    (
        LambdaLR,
        {"base_lr": 0.1, "lr_lambda": [lambda epoch: epoch > 3]},
        TypeError,
        r"the result of lr_lambda\[0\] must hold real numbers, got an array of bool",
    ),
    (
        CyclicLR,
        {"scale_fn": lambda cycle: jnp.ones(2)},
        ValueError,
        r"the result of scale_fn must be a scalar, got an array of shape \(2,\)",
    ),
]


@pytest.mark.parametrize(("cls", "arguments", "error", "message"), BAD)
def test_bad_argument_raises_when_the_schedule_is_built(cls, arguments, error, message):
    with pytest.raises(error, match=message):
        cls(**arguments)
