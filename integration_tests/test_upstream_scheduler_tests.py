"""braintools' own scheduler tests, from the installed package, with these classes in place."""

import collections
import pathlib
import subprocess
import sys
from xml.etree import ElementTree

import braintools
import pytest

pytestmark = pytest.mark.slow

FOLDER = pathlib.Path(braintools.optim.__file__).parent
# braintools 0.3.0 has the first four, and 0.4.0 the last two.
TESTS = [
    "_optax_lr_scheduler_test.py",
    "_audit_fixes_test.py::TestSchedulerAppliedLR",
    "_audit_fixes_test.py::TestSchedulerStructural",
    "_reaudit_fixes_test.py",
    "_lr_scheduler_test.py",
    "_regression_test.py",
]

UNSCHEDULED = "asserts that the optimizer reports base_lr, not the scheduled rate, until a step"
ABSOLUTE = "asserts that values are absolute rates, and base_lr is ignored"
COUNTERS = "asserts that a checkpoint holds the counters T_cur and T_i: it is last_epoch alone here"
PLAN = (
    "asserts that a checkpoint brings the milestones: here the plan is the code's, with a warning"
)
REJECTED = {
    "TestWarmupScheduler.test_warmup_with_optimizer": UNSCHEDULED,
    "TestLinearLR.test_linear_lr_with_optimizer": UNSCHEDULED,
    "TestConstantLR.test_constant_lr_with_optimizer": UNSCHEDULED,
    "TestPiecewiseConstantSchedule.test_piecewise_constant_with_optimizer": ABSOLUTE,
    "TestPiecewiseConstantSchedule.test_piecewise_constant_multiple_param_groups": ABSOLUTE,
    "TestSchedulerStructural.test_S15_warm_restarts_state_roundtrip": COUNTERS,
    "TestCyclicLR.test_cyclic_lr_step_size_down": (
        "asserts 0.1 one epoch before the end of the way down, where the documented rate is 0.19"
    ),
    "TestWarmupCosineSchedule.test_basic_warmup_cosine": (
        "asserts a rate below 0.5 halfway down from 1 to 0, where it is 0.5"
    ),
    "TestSequentialLRResume"
    ".test_load_state_dict_with_different_milestones_continues_saved_schedule": PLAN,
    "TestSequentialLRResume.test_load_state_dict_rejects_milestone_count_mismatch": PLAN,
}
# braintools 0.4.0 has mended these.
MENDED = {name for name, why in REJECTED.items() if why == UNSCHEDULED or "CyclicLR" in name}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, set[bool]]:
    """Return whether each of the tests passed; one with parameters has an outcome for each."""
    report = tmp_path_factory.mktemp("upstream") / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "replaced_schedulers"]
    command += ["-p", "no:cacheprovider", "-c", "/dev/null", f"--rootdir={FOLDER}"]
    command += [f"--junitxml={report}"]
    command += [str(FOLDER / t) for t in TESTS if (FOLDER / t.partition("::")[0]).exists()]
    run = subprocess.run(
        command, cwd=pathlib.Path(__file__).parent, capture_output=True, text=True, check=False
    )
    assert report.exists(), run.stdout + run.stderr
    found: dict[str, set[bool]] = collections.defaultdict(set)
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}.{case.get('name')}".split("[")[0]
        passed = case.find("failure") is None and case.find("error") is None
        found[".".join(name.split(".")[-2:])].add(passed)
    return found


def test_all_pass_but_those_that_assert_what_is_rejected_here(outcomes):
    assert len(outcomes) > 130
    failed = {name for name, results in outcomes.items() if results == {False}}
    rejected = {name for name in REJECTED if name in outcomes}
    assert failed == (rejected if braintools.__version__ < "0.4" else rejected - MENDED)
    assert {False, True} not in outcomes.values()
