"""Learning-rate schedules for models trained with brainstate and Flax."""

from brainsched import schedules
from brainsched._base import LRScheduler
from brainsched._config import from_config
from brainsched._optax import scale_by_scheduler
from brainsched._range_test import RangeTest, Suggestion, lr_range_test, lr_range_test_optax
from brainsched.schedules import *  # noqa: F403  (the classes that it lists)

__version__ = "0.1.0"

__all__ = [
    "LRScheduler",
    "RangeTest",
    "Suggestion",
    "from_config",
    "lr_range_test",
    "lr_range_test_optax",
    "scale_by_scheduler",
    *schedules.__all__,
]
