"""Learning-rate schedules for models trained with brainstate and Flax."""

from brainsched import types  # noqa: F401  (first: it leaves 64-bit types on)

# isort: split
from brainsched import schedules
from brainsched.configs.from_config import from_config
from brainsched.core.scheduler import LRScheduler
from brainsched.optax.layerwise import layerwise_decay
from brainsched.optax.resume import check_resumed
from brainsched.optax.scale import rates_by_name, scale_by_scheduler
from brainsched.range_test.curve import RangeTest, Suggestion
from brainsched.range_test.sweep import lr_range_test, lr_range_test_optax
from brainsched.schedules import *  # noqa: F403  (the classes that it lists)
from brainsched.schedules.branch import cooldown, rewarm
from brainsched.schedules.value_schedule import ValueSchedule

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
