"""A schedule is listed wherever CONTRIBUTING.md says: else a test names the file to edit."""

import inspect
import re
from pathlib import Path

import pytest

import brainsched
from brainsched import schedules

ROOT = Path(__file__).parents[1]
CLASSES = sorted(
    cls.__name__
    for module in vars(schedules).values()
    if inspect.ismodule(module)
    for cls in vars(module).values()
    if inspect.isclass(cls)
    and issubclass(cls, brainsched.LRScheduler)
    and cls.__module__ == module.__name__
    and "formula" in vars(cls)
)

# What is missing, the file to edit, and what it must have in it.
PLACES = [
    ("a public name", "src/brainsched/schedules/__init__.py", r'^    "{name}",$'),
    ("a reference in float64", "tests/test_schedule_references.py", r"^ +\(\n? *{name},"),
    ("a Hypothesis strategy", "tests/schedule_strategies.py", r'"{name}": |brainsched\.{name}\b'),
    ("a picture", "examples/gallery.py", r"\bbs\.{name}\("),
    ("a row in the table of schedules", "README.md", r"^\| `{name}` \|"),
    ("a line", "CHANGELOG.md", r"`{name}\b"),
]
# What these have in a test file of their own, in place of the family's file.
ELSEWHERE = {
    "tests/test_schedule_references.py": {
        "Branch": "tests/test_branch.py",
        "ChainedScheduler": "tests/test_composition.py",
        "Extension": "tests/test_branch.py",
        "LambdaLR": "tests/test_user_schedules.py",
        "PerUpdate": "tests/test_per_update.py",
        "PiecewiseConstantSchedule": "tests/test_piecewise_constant.py",
        "ReduceLROnPlateau": "tests/test_plateau.py",
        "SequentialLR": "tests/test_composition.py",
    },
    "tests/schedule_strategies.py": {"ReduceLROnPlateau": "tests/test_plateau.py"},
}


def missing(name: str, place: tuple[str, str, str], text: str) -> str | None:
    """Return what to do where a file does not have the schedule ``name``."""
    what, file, pattern = place
    if re.search(pattern.format(name=name), text, re.MULTILINE):
        return None
    return f"{name} has no {what.removeprefix('a ')}: add {what} to {file}"


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place[1])
@pytest.mark.parametrize("name", CLASSES)
def test_every_schedule_has_its_place_in_each_file(name, place):
    what, file, pattern = place
    if name in ELSEWHERE.get(file, {}):
        file, pattern = ELSEWHERE[file][name], r"\b{name}\("
    assert missing(name, (what, file, pattern), (ROOT / file).read_text()) is None


def test_contributing_lists_these_files():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert [file for _, file, _ in PLACES if f"`{file}`" not in text] == []


def test_a_schedule_that_is_missing_is_named_with_the_file_to_edit():
    text = "| `StepLR` | a rate |"
    place = ("a row in the table of schedules", "README.md", r"^\| `{name}` \|")
    assert missing("StepLR", place, text) is None
    expected = "NewLR has no row in the table of schedules: add a row in the table of schedules to "
    assert missing("NewLR", place, text) == f"{expected}README.md"
