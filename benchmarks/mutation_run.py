"""Change the code in one place at a time, and see whether a test fails.

    python -m pytest -n auto --dist loadfile --cov --cov-context=test
    python benchmarks/mutation_run.py --minutes 60
    python benchmarks/mutation_run.py --report

The first command records which test runs which line; how long each takes is learned on the way.
Run all three in a clone: the code is changed on disk. Runs side by side (``--part``) need a clone
each, and share the file of mutants (``--session``). A run goes on where the last one ended;
``--again`` tests what survived once more, after a test was added or with more time for each, but
for loops that never ended; ``--only`` keeps to the files that it names.
``equivalent_mutants.toml`` lists the mutants that no test can tell from the original.

The mutants, and the file of them, are cosmic-ray's. Its own way to run them starts a Python for
each, and loading JAX and brainstate takes longer than the tests that fail: here they are loaded
once, and each mutant is tested in a fork.
"""

import argparse
import ast
import contextlib
import functools
import gc
import importlib
import json
import multiprocessing
import os
import random
import signal
import sys
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import coverage
import pytest
from cosmic_ray.commands import init
from cosmic_ray.mutating import use_mutation
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkItem, WorkResult

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "brainsched"
EQUIVALENT = ROOT / "benchmarks" / "equivalent_mutants.toml"
NO_ANSWER = "no answer"
# Loaded before the forks. None of them starts a thread or a device when it is imported, or is a
# plugin of pytest, which has to load those itself.
LOADED = ["jax", "brainstate", "braintools", "optax", "flax.nnx", "beartype", "omegaconf"]
# One way to change each operator and number: the other ways fail the same tests, or raise. An order
# is changed at its boundary, since a condition is negated besides.
BINARY = {
    "Add": "Sub",
    "Sub": "Add",
    "Mul": "Div",
    "Div": "Mul",
    "FloorDiv": "Mul",
    "Mod": "Mul",
    "Pow": "Mul",
    "LShift": "RShift",
    "RShift": "LShift",
    "BitAnd": "BitOr",  # `|` stands between types alone
}
COMPARISONS = {
    "Eq": "NotEq",
    "NotEq": "Eq",
    "Is": "IsNot",
    "IsNot": "Is",
    "Lt": "LtE",
    "LtE": "Lt",
    "Gt": "GtE",
    "GtE": "Gt",
}
OPERATORS = {
    *(f"core/ReplaceBinaryOperator_{old}_{new}" for old, new in BINARY.items()),
    *(f"core/ReplaceComparisonOperator_{old}_{new}" for old, new in COMPARISONS.items()),
    "core/AddNot",
    "core/ExceptionReplacer",
    "core/NumberReplacer",
    "core/RemoveDecorator",
    "core/ReplaceAndWithOr",
    "core/ReplaceBreakWithContinue",
    "core/ReplaceContinueWithBreak",
    "core/ReplaceFalseWithTrue",
    "core/ReplaceOrWithAnd",
    "core/ReplaceTrueWithFalse",
    "core/ReplaceUnaryOperator_Delete_Invert",
    "core/ReplaceUnaryOperator_Delete_Not",
    "core/ReplaceUnaryOperator_Delete_USub",
    "core/ZeroIterationForLoop",
}

# In a line that is not changed: what no program runs, and a check of our own code.
LEFT_ALONE = ["TYPE_CHECKING", "strict=True"]


@functools.cache
def spans(path: Path) -> dict[int, range]:
    """Return for each line the lines that run if it does, of which coverage records some.

    They are those of its statement, up to the block that the statement opens. The decorators and
    the defaults of a function run when it is imported, and matter when its body runs.
    """
    found: dict[int, range] = {}
    for node in ast.walk(ast.parse(path.read_text())):  # the outer ones first
        if not isinstance(node, ast.stmt):
            continue
        last = node.end_lineno or node.lineno
        block = getattr(node, "body", None)
        header = max(node.lineno, block[0].lineno - 1) if block else last
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            found.update(dict.fromkeys(range(first, header + 1), range(first, last + 1)))
        else:
            lines = range(node.lineno, header + 1)
            found.update(dict.fromkeys(lines, lines))
    return found


def module(mutation: MutationSpec) -> str:
    """Return the path of the file that is changed, within the package."""
    return mutation.module_path.relative_to("src/brainsched").as_posix()


class Tests:
    """Which tests run a line, and how long they take, as far as it is known."""

    def __init__(self, data_file: Path, durations: Path) -> None:
        self.seconds: dict[str, float] = defaultdict(lambda: 0.1)
        if durations.exists():
            self.seconds.update(json.loads(durations.read_text()))
        data = coverage.CoverageData(str(data_file))
        data.read()
        self._of_line = {
            name.partition("/src/brainsched/")[2]: data.contexts_by_lineno(name)
            for name in data.measured_files()
            if "/src/brainsched/" in name
        }

    def running(self, mutation: MutationSpec, seconds: float) -> list[str]:
        """Return the tests that run what is changed, the fastest of each function first."""
        of_line = self._of_line.get(module(mutation), {})
        line = mutation.start_pos[0]
        lines = spans(mutation.module_path).get(line, [line])  # of an except clause: itself
        contexts = {context for line in lines for context in of_line.get(line, [])}
        if contexts <= {""}:  # it runs when the module is imported, or in a program
            contexts = {context for found in of_line.values() for context in found}
        names = {context.rpartition("|")[0] for context in contexts} - {""}
        by_time = sorted(names, key=lambda name: (self.seconds[name], name))
        seen: Counter[str] = Counter()
        order: dict[str, tuple[int, float]] = {}
        for name in by_time:
            function = name.partition("[")[0]
            order[name] = seen[function], self.seconds[name]
            seen[function] += 1
        chosen: list[str] = []
        total = 0.0
        for name in sorted(by_time, key=order.__getitem__):
            if not chosen or total + self.seconds[name] <= seconds:
                total += self.seconds[name]
                chosen.append(name)
        return chosen


class Reports:
    """Keeps the name of the first test that fails, and how many seconds each one took."""

    def __init__(self) -> None:
        self.failure = ""
        self.seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.failed:
            self.failure = self.failure or report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failure = self.failure or report.nodeid


def run_tests(tests: Sequence[str], answer: Connection) -> None:
    """Run tests, in a process of their own, and send the first that fails, and their seconds."""
    os.setsid()
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    reports = Reports()
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov"]
    status = pytest.main([*options, *tests], plugins=[reports])
    failure = reports.failure or ("" if status == 0 else f"pytest exits with {status}")
    answer.send((failure, reports.seconds))
    os._exit(0)


def outcome_of(tests: Sequence[str], seconds: float) -> tuple[str | None, dict[str, float]]:
    """Return the first test that fails, ``""`` if none does, and how long each took.

    None stands for no answer: the time is over, or the process was ended, by whomever.
    """
    here, there = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=run_tests, args=(tests, there))
    child.start()
    there.close()
    try:
        return here.recv() if here.poll(seconds) else (None, {})
    except EOFError:
        return None, {}
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # and the programs that it started
        child.join()


def differs(item: WorkItem) -> bool:
    """Whether a mutant is one of those that are run."""
    (mutation,) = item.mutations
    line = mutation.module_path.read_text().splitlines()[mutation.start_pos[0] - 1]
    operator = mutation.operator_name.removeprefix("core/")
    if operator == "NumberReplacer" and mutation.occurrence % 2:
        return False  # the second way
    if operator == "ExceptionReplacer" and "." in line:
        return False  # cosmic-ray 8.7.0 cannot change it
    return mutation.operator_name in OPERATORS and not any(text in line for text in LEFT_ALONE)


def mutants(path: Path, seed: int, first: Sequence[str]) -> list[WorkItem]:
    """Return the mutants in the order in which they are tested; make the file of them."""
    made = path.exists()
    with use_db(str(path), WorkDB.Mode.create) as database:
        if not made:
            files = [file.relative_to(ROOT) for file in sorted(SOURCES.rglob("*.py"))]
            init(files, database, {"core/VariableReplacer": [], "core/VariableInserter": []})
            skipped = [item.job_id for item in database.work_items if not differs(item)]
            database.set_multiple_results(skipped, WorkResult(WorkerOutcome.SKIPPED))
        skipped = {
            name
            for name, result in database.results
            if result.worker_outcome == WorkerOutcome.SKIPPED
        }
        # Their names are random, so that the order is by what is changed, and where.
        items = sorted(
            (item for item in database.work_items if item.job_id not in skipped),
            key=lambda item: repr(item.mutations[0]),
        )
    random.Random(seed).shuffle(items)
    return sorted(items, key=lambda item: not named(item, first))


def named(item: WorkItem, parts: Sequence[str]) -> bool:
    """Whether the path of the file that a mutant changes has one of these parts."""
    return any(part in module(item.mutations[0]) for part in parts)


def tested(item: WorkItem, tests: Tests, chosen: Sequence[str], seconds: float) -> WorkResult:
    """Change the code, run the chosen tests, and change it back."""
    (mutation,) = item.mutations
    path = mutation.module_path
    times = path.stat()
    operator = get_operator(mutation.operator_name)()
    with use_mutation(path, operator, mutation.occurrence) as (before, after):
        failure, took = outcome_of(chosen, seconds) if chosen else ("", {})
    tests.seconds.update(took)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # what Python has compiled holds
    line = mutation.start_pos[0]
    changed = [code.splitlines()[line - 1].strip() for code in (before, after)]
    outcome = TestOutcome.KILLED if failure else TestOutcome.SURVIVED
    if failure is None:
        failure = NO_ANSWER
    return WorkResult(
        WorkerOutcome.NORMAL,
        output=f"{failure or 'none fails'} of {len(chosen)} tests",
        test_outcome=outcome,
        diff=f"{path}:{line}\n- {changed[0]}\n+ {changed[1]}",
    )


def known_equivalents() -> set[str]:
    """Return the changes that make no difference, as in a result."""
    groups = tomllib.loads(EQUIVALENT.read_text())["group"]
    return {
        f"{file}\n- {before}\n+ {after}"
        for group in groups
        for file, before, after in group["mutants"]
    }


def change(item: WorkItem, result: WorkResult) -> str:
    """Return what was changed, as :func:`known_equivalents` has it."""
    return f"{module(item.mutations[0])}\n{result.diff.partition(chr(10))[2]}"


def rows(items: Sequence[WorkItem], results: dict[str, WorkResult]) -> Iterator[str]:
    """Yield the lines of a table of the outcomes by file, and what survived."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    survived = []
    equivalents = known_equivalents()
    for item in items:
        result = results.get(item.job_id)
        outcome = "not run"
        if result is not None:
            if result.test_outcome == TestOutcome.KILLED:
                outcome = "killed"
            elif result.output.startswith(NO_ANSWER):
                outcome = "endless"
            else:
                outcome = "equivalent" if change(item, result) in equivalents else "survived"
        for name in (module(item.mutations[0]), "all"):
            counts[name]["mutants"] += 1
            counts[name][outcome] += 1
        if result is not None and outcome == "survived":
            survived.append(f"{result.diff}\n  {result.output}\n")
    outcomes = ["killed", "endless", "equivalent", "survived"]
    yield f"| file | mutants | run | {' | '.join(outcomes)} |\n|---|---|---|---|---|---|---|"
    for name, count in sorted(counts.items()):
        run = count["mutants"] - count["not run"]
        numbers = [count["mutants"], run, *(count[outcome] for outcome in outcomes)]
        yield f"| {name} | {' | '.join(map(str, numbers))} |"
    yield ""
    yield from sorted(survived)


def main() -> None:
    """Test mutants for so many minutes, or say what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--session", type=Path, default=Path("mutants.sqlite"))
    parser.add_argument("--coverage", type=Path, default=ROOT / ".coverage")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of the order")
    parser.add_argument("--first", nargs="*", default=[], help="parts of paths that come first")
    parser.add_argument("--only", nargs="*", default=[""], help="parts of paths; no others")
    parser.add_argument("--tests", type=float, default=20, help="seconds of tests for a mutant")
    parser.add_argument("--seconds", type=float, default=180, help="until a mutant is given up")
    parser.add_argument("--part", default="1/1", help="2/3: the second of three side by side")
    parser.add_argument("--again", action="store_true", help="test once more what survived")
    parser.add_argument("--also", nargs="*", default=[], help="tests for every mutant, last")
    parser.add_argument("--check", action="store_true", help="that unchanged code passes the tests")
    parser.add_argument("--report", action="store_true")
    given = parser.parse_args()

    durations = given.session.with_suffix(".json").resolve()
    session, tests = given.session.resolve(), Tests(given.coverage, durations)
    os.chdir(ROOT)
    # For the programs that tests start, too. A mutant may be as long as the original.
    os.environ.update(PYTHONPATH=str(ROOT / "src"), PYTHONDONTWRITEBYTECODE="1")
    sys.path.insert(0, str(ROOT / "src"))
    sys.dont_write_bytecode = True
    part, parts = map(int, given.part.split("/"))
    items = mutants(session, given.seed, given.first)
    with use_db(str(session), WorkDB.Mode.open) as database:
        results = dict(database.results)
        if given.report:
            print(*rows(items, results), sep="\n")
            return
        for name in LOADED:
            importlib.import_module(name)
        gc.freeze()  # what is loaded is garbage in no fork
        if given.check:
            killers = {
                result.output.rpartition(" of ")[0]
                for result in results.values()
                if result.test_outcome == TestOutcome.KILLED
            }
            failure, _ = outcome_of(sorted(name for name in killers if "::" in name), 3600)
            print(
                f"{len(killers)} tests killed; of them, {failure or 'none'} fails without a change"
            )
            return
        equivalents = known_equivalents()
        end = time.monotonic() + 60 * given.minutes
        for item in items[part - 1 :: parts]:
            result = results.get(item.job_id)
            survived = result is not None and result.test_outcome == TestOutcome.SURVIVED
            if not named(item, given.only) or survived != given.again or (result and not survived):
                continue
            if survived and (
                result.output.startswith(NO_ANSWER) or change(item, result) in equivalents
            ):
                continue
            if time.monotonic() > end:
                break
            chosen = [*tests.running(item.mutations[0], given.tests), *given.also]
            result = tested(item, tests, chosen, given.seconds)
            database.set_result(item.job_id, result)
            durations.write_text(json.dumps(tests.seconds, indent=0))
            if result.test_outcome == TestOutcome.SURVIVED:
                print(f"{result.diff}\n  {result.output}\n", flush=True)


if __name__ == "__main__":
    main()
