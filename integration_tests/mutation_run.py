"""Change the code in one place at a time, and see whether a test fails.

    python -m pytest -n auto --dist loadfile --cov --cov-context=test  # which test runs which line
    python integration_tests/mutation_run.py mutants.sqlite [--sample 1000] [--tests 150]
    cr-report mutants.sqlite

The mutants, and the file of them, are cosmic-ray's. Its own way to run them starts a Python for each,
and loading JAX and brainstate takes longer than the tests that fail: here they are loaded once, and
each mutant is tested in a fork, by those tests that run the line, the most special ones first. A file
that is there already is gone on with; with ``--survivors`` what survived is tested again.
"""

import argparse
import multiprocessing
import os
import random
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import coverage
import pytest
from cosmic_ray.commands import init
from cosmic_ray.mutating import use_mutation
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkResult

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "brainsched"
# One of each kind. More ways to replace an operator are killed by the same tests, and most of them
# would raise; `|` stands in annotations alone.
OPERATORS = [
    "ReplaceBinaryOperator_Add_Sub",
    "ReplaceBinaryOperator_Sub_Add",
    "ReplaceBinaryOperator_Mul_Div",
    "ReplaceBinaryOperator_Div_Mul",
    "ReplaceBinaryOperator_FloorDiv_Mul",
    "ReplaceBinaryOperator_Mod_Mul",
    "ReplaceBinaryOperator_Pow_Mul",
    "ReplaceComparisonOperator_Eq_NotEq",
    "ReplaceComparisonOperator_NotEq_Eq",
    "ReplaceComparisonOperator_Lt_LtE",
    "ReplaceComparisonOperator_Lt_Gt",
    "ReplaceComparisonOperator_LtE_Lt",
    "ReplaceComparisonOperator_LtE_GtE",
    "ReplaceComparisonOperator_Gt_GtE",
    "ReplaceComparisonOperator_Gt_Lt",
    "ReplaceComparisonOperator_GtE_Gt",
    "ReplaceComparisonOperator_GtE_LtE",
    "ReplaceComparisonOperator_Is_IsNot",
    "ReplaceComparisonOperator_IsNot_Is",
    "ReplaceUnaryOperator_Delete_USub",
    "ReplaceUnaryOperator_Delete_Not",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "AddNot",
    "NumberReplacer",
    "ZeroIterationForLoop",
]


class Tests:
    """Which tests run a line, from the contexts that coverage recorded."""

    def __init__(self, file: Path) -> None:
        data = coverage.CoverageData(str(file))
        data.read()
        self.of_line: dict[Path, dict[int, list[str]]] = {}
        self.lines: Counter[str] = Counter()
        for name in data.measured_files():
            contexts = data.contexts_by_lineno(name)
            self.of_line[Path(name)] = contexts
            for found in contexts.values():
                self.lines.update(found)

    def running(self, mutation: MutationSpec, at_most: int) -> list[str]:
        """Return the tests that run what was changed, those that run the fewest lines first."""
        of_line = self.of_line.get(mutation.module_path.resolve(), {})
        changed = range(mutation.start_pos[0], mutation.end_pos[0] + 1)
        contexts = {context for line in changed for context in of_line.get(line, [])}
        if contexts <= {""}:  # it runs when it is imported
            contexts = {context for found in of_line.values() for context in found}
        names = {context.partition("|")[0] for context in contexts if context}
        cost: dict[str, int] = defaultdict(int)
        for context, number in self.lines.items():
            cost[context.partition("|")[0]] += number
        return sorted(names, key=lambda name: (cost[name], name))[:at_most]


def fails(tests: Sequence[str]) -> None:
    """Run tests, in a process of their own, and exit with what pytest says."""
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]))


def test(tests: Sequence[str], seconds: float) -> str:
    """Return ``"killed"``, ``"survived"``, or ``"timeout"`` where no test had failed by then."""
    child = multiprocessing.get_context("fork").Process(target=fails, args=(tests,))
    child.start()
    child.join(seconds)
    if child.is_alive():
        child.kill()
        child.join()
        return "timeout"
    return "killed" if child.exitcode else "survived"


def session(path: Path, sample: int, seed: int) -> list[str]:
    """Return the mutants to test, making the file of them where there is none."""
    made = path.exists()
    with use_db(str(path), WorkDB.Mode.create) as database:
        if not made:
            operators = {f"core/{name}": [{}] for name in OPERATORS}
            files = sorted(SOURCES.rglob("*.py"))
            init([file.relative_to(ROOT) for file in files], database, operators)
        # Their names are random, so that the order is by what is changed, and where.
        items = sorted(
            database.work_items, key=lambda item: repr((item.mutations[0], item.mutations))
        )
    names = [item.job_id for item in items]
    return random.Random(seed).sample(names, min(sample, len(names)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("session", type=Path)
    parser.add_argument("--sample", type=int, default=10**6, help="how many mutants, of all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--tests", type=int, default=150, help="at most so many for a mutant")
    parser.add_argument("--seconds", type=float, default=120, help="at most so many for a mutant")
    parser.add_argument("--survivors", action="store_true", help="test again what survived")
    given = parser.parse_args()

    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT / "src"))
    sys.dont_write_bytecode = True  # a mutant may be as long as the original, and as new
    tests = Tests(ROOT / ".coverage")
    import brainstate  # noqa: F401  loaded before the forks; brainsched is not
    import braintools  # noqa: F401

    chosen = session(given.session, given.sample, given.seed)
    with use_db(str(given.session), WorkDB.Mode.open) as database:
        items = {item.job_id: item for item in database.work_items}
        results = dict(database.results)
        for number, name in enumerate(chosen):
            outcome = results[name].test_outcome if name in results else None
            if outcome is not None and not (given.survivors and outcome == TestOutcome.SURVIVED):
                continue
            (mutation,) = items[name].mutations
            selected = tests.running(mutation, given.tests)
            with use_mutation(
                mutation.module_path, get_operator(mutation.operator_name)(), mutation.occurrence
            ) as (original, changed):
                line = mutation.start_pos[0]
                found = test(selected, given.seconds) if selected and changed else "survived"
            killed = found == "killed"
            before = original.splitlines()[line - 1].strip()
            after = (changed or original).splitlines()[line - 1].strip()
            result = WorkResult(
                WorkerOutcome.NORMAL,
                output=f"{len(selected)} tests: {found}",
                test_outcome=TestOutcome.KILLED if killed else TestOutcome.SURVIVED,
                diff=f"{mutation.module_path}:{line}\n- {before}\n+ {after}",
            )
            database.set_result(name, result)
            if not killed:
                print(f"{number}: {result.output}; {result.diff}", flush=True)
        done = [result for name, result in database.results if name in set(chosen)]
    outcomes = Counter(result.test_outcome for result in done)
    print(f"{len(items)} mutants, {len(done)} of them tested: {outcomes[TestOutcome.KILLED]} killed")


if __name__ == "__main__":
    main()
