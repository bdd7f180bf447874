"""The schedules: a file for each family, a class for each schedule, a formula for each class.

It may import core, link, checks and types.
"""

from brainsched.schedules.branch import Branch, Extension
from brainsched.schedules.composition import ChainedScheduler, PerUpdate, SequentialLR
from brainsched.schedules.cosine import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    WarmupCosineSchedule,
)
from brainsched.schedules.cyclic import CyclicLR, OneCycleLR
from brainsched.schedules.exponential import ExponentialDecayLR, ExponentialLR
from brainsched.schedules.functional import LambdaLR
from brainsched.schedules.inverse import InverseSqrtLR, InverseTimeDecayLR
from brainsched.schedules.piecewise_constant import PiecewiseConstantSchedule
from brainsched.schedules.piecewise_linear import PiecewiseLinearSchedule
from brainsched.schedules.plateau import ReduceLROnPlateau
from brainsched.schedules.polynomial import ConstantLR, LinearLR, PolynomialLR
from brainsched.schedules.steps import MultiStepLR, StepLR
from brainsched.schedules.warmup import WSD, WarmupScheduler

__all__ = [
    "WSD",
    "Branch",
    "ChainedScheduler",
    "ConstantLR",
    "CosineAnnealingLR",
    "CosineAnnealingWarmRestarts",
    "CyclicLR",
    "ExponentialDecayLR",
    "ExponentialLR",
    "Extension",
    "InverseSqrtLR",
    "InverseTimeDecayLR",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "PerUpdate",
    "PiecewiseConstantSchedule",
    "PiecewiseLinearSchedule",
    "PolynomialLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
    "WarmupCosineSchedule",
    "WarmupScheduler",
]
