"""A schedule is added in three places: its file, the export and one reference row."""

import inspect
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import brainsched
from brainsched import LRScheduler, schedules
from schedule_references import SCHEDULES
from schedule_strategies import single

ROOT = Path(__file__).parents[1]
CLASSES = {
    cls
    for module in vars(schedules).values()
    if inspect.ismodule(module)
    for cls in vars(module).values()
    if inspect.isclass(cls)
    and issubclass(cls, LRScheduler)
    and cls.__module__ == module.__name__
    and "formula" in vars(cls)
}
# What is made of other schedules, reads a metric or has a test file of its own.
WITHOUT_A_ROW = {
    brainsched.Branch,
    brainsched.ChainedScheduler,
    brainsched.Extension,
    brainsched.PerUpdate,
    brainsched.PiecewiseConstantSchedule,
    brainsched.ReduceLROnPlateau,
    brainsched.SequentialLR,
}


def test_every_schedule_is_exported():
    missing = {cls.__name__ for cls in CLASSES} - set(schedules.__all__)
    assert not missing, "add them to src/brainsched/schedules/__init__.py"


def test_every_schedule_has_a_reference_row():
    missing = CLASSES - {row[0] for row in SCHEDULES} - WITHOUT_A_ROW
    assert not missing, "add a row to tests/schedule_references.py"


def test_contributing_names_the_three_places():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for place in ("src/brainsched/schedules/", "schedules/__init__.py", "schedule_references.py"):
        assert place in text


class HalvingLR(LRScheduler):
    def __init__(self, base_lr=1e-3, every=3, last_epoch=0):
        self.every = every
        super().__init__(base_lr, last_epoch)

    def formula(self, epoch, base_lrs, xp):
        return base_lrs * 0.5 ** (epoch // self.every)


ROW = (HalvingLR, lambda t, base, every=3: base * 0.5 ** (t // every), {"every": 5}, 20, 0)


@given(st.data())
def test_a_row_is_enough_for_the_properties(data):
    scheduler = data.draw(single(2, rows=[*SCHEDULES, ROW])["HalvingLR"])
    assert scheduler.every == 5
    assert len(scheduler.base_lrs) == 2
    np.testing.assert_array_equal(scheduler.lr_at(5), scheduler.lr_at(0) * np.float32(0.5))
