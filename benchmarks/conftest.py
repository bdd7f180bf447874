"""Print, for each group of benchmarks, how many times as long each peer takes as brainsched."""

from collections import defaultdict

import pytest

import brainsched

OURS = "brainsched"


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config):
    session = getattr(config, "_benchmarksession", None)
    if session is None or not session.benchmarks:
        return
    groups = defaultdict(dict)
    for bench in session.benchmarks:
        # A shared machine only ever adds time: the least is the nearest to the truth.
        per_unit = bench.stats.min / bench.extra_info.get("units", 1) * 1e6
        groups[bench.group][bench.extra_info["name"]] = per_unit
    version = brainsched.__version__
    terminalreporter.section(f"microseconds, and times as long as brainsched {version}")
    width = max(map(len, groups))
    for group, times in groups.items():
        ours = times.get(OURS)
        cells = [
            f"{name} {time:.4g}" + (f" ({time / ours:.3g}x)" if ours and name != OURS else "")
            for name, time in times.items()
        ]
        terminalreporter.write_line(f"{group:<{width}}  {'   '.join(cells)}")


@pytest.fixture
def measure(benchmark, request):
    """Return a function that measures ``call``, as ``name`` in the group of the test."""

    def run(name, call, *, group=None, units=1, rounds=60, iterations=1):
        benchmark.group = group or request.node.originalname.removeprefix("bench_").replace(
            "_", " "
        )
        benchmark.extra_info.update(name=name, units=units)
        call()
        benchmark.pedantic(call, rounds=rounds, iterations=iterations, warmup_rounds=2)

    return run
