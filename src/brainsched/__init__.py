"""Learning-rate schedules for models trained with brainstate and Flax."""

from brainsched._base import LRScheduler
from brainsched._config import from_config
from brainsched.schedules import PiecewiseConstantSchedule

__version__ = "0.1.0"

__all__ = ["LRScheduler", "PiecewiseConstantSchedule", "from_config"]
