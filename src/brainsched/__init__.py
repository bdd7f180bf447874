"""Learning-rate schedules for models trained with brainstate and Flax."""

from brainsched import _x64, schedules  # noqa: F401  (before all others, see there)
from brainsched._base import LRScheduler
from brainsched._from_config import from_config
from brainsched._layerwise import layerwise_decay
from brainsched._optax import rates_by_name, scale_by_scheduler
from brainsched._optax_resume import check_resumed
from brainsched._range_curve import RangeTest, Suggestion
from brainsched._range_test import lr_range_test, lr_range_test_optax
from brainsched._value_schedule import ValueSchedule
from brainsched.schedules import *  # noqa: F403  (the classes that it lists)
from brainsched.schedules.branch import cooldown, rewarm

__version__ = "0.2.0"

__all__ = [
    "LRScheduler",
    "RangeTest",
    "Suggestion",
    "ValueSchedule",
    "check_resumed",
    "cooldown",
    "from_config",
    "layerwise_decay",
    "lr_range_test",
    "lr_range_test_optax",
    "rates_by_name",
    "rewarm",
    "scale_by_scheduler",
    *schedules.__all__,
]
