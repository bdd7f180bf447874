"""The schedules: a file for each family, a class for each schedule, a formula for each class."""

from brainsched.schedules.piecewise_constant import PiecewiseConstantSchedule

__all__ = ["PiecewiseConstantSchedule"]
