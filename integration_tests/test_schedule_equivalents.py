"""docs/schedule-equivalents.md: ours give the numbers of the calls that they stand beside.

What optax and braintools give is calculated here, and what the others gave is in peer_rates.json,
which peer_rates.py wrote in an environment that has them.
"""

import inspect
import json
from typing import Any

import braintools
import jax
import jax.numpy as jnp
import numpy as np
import optax
import peer_rates
import pytest

import brainsched

GUIDE = peer_rates.GUIDE.read_text()
ROWS = peer_rates.rows()
STORED = json.loads(peer_rates.RATES.read_text())
OURS: dict[str, Any] = {**vars(brainsched), "jnp": jnp}


def rates_of_ours(call: str, last: int) -> list[float]:
    """Return the rates of a scheduler of ours, by stepping where it needs a metric."""
    scheduler = eval(call, OURS)
    if not isinstance(scheduler, brainsched.ReduceLROnPlateau):
        return scheduler.lr_at(scheduler.epoch + np.arange(last + 1))[:, 0].tolist()
    rates = [float(scheduler.get_last_lr()[0])]
    for metric in peer_rates.METRICS[:last]:
        scheduler.step(metric)
        rates.append(float(scheduler.get_last_lr()[0]))
    return rates


def rates_of_theirs(row: peer_rates.Row) -> list[float]:
    if row.peer == "optax":
        schedule = eval(row.theirs, {"optax": optax})
        return [float(schedule(step)) for step in range(row.last + 1)]
    if row.peer != "braintools":
        return STORED[row.peer][row.theirs]
    scheduler = eval(row.theirs, {"braintools": braintools})
    rates = []
    for step in range(row.last + 1):
        rates.append(float(scheduler.get_lr()[0]))
        by_metric = isinstance(scheduler, braintools.optim.ReduceLROnPlateau)
        scheduler.step(*[peer_rates.METRICS[step]] * by_metric)
    return rates


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.peer}-{row.theirs}")
def test_the_call_of_ours_gives_the_numbers_of_theirs(row):
    with jax.enable_x64(True):
        theirs = rates_of_theirs(row)
        ours = rates_of_ours(row.ours, row.last)
    assert len(theirs) == row.last + 1
    # A cosine as 1 + cos(x) has lost its last digits near its end, which is all that atol is for.
    precision = np.finfo(np.float32).eps if row.peer == "Keras" else 1e-9
    np.testing.assert_allclose(
        ours[row.first :], theirs[row.first :], rtol=float(precision), atol=1e-15
    )


def test_the_table_of_boundaries_shows_what_each_trains_at():
    table = [row for row in ROWS if row.stated]
    assert [row.peer for row in table] == ["optax", "braintools", "PyTorch", "timm", "Keras"]
    for row in table:
        stated = [float(rate.strip("* ")) for rate in row.stated.split(",")]
        assert rates_of_theirs(row)[2:] == pytest.approx(stated, rel=1e-6)


def public(module: Any, but_for: set[str]) -> set[str]:
    names = {name for name, value in vars(module).items() if inspect.isfunction(value)}
    return {name for name in names if not name.startswith("_")} - but_for


def test_every_schedule_of_optax_is_there():
    takers = {"inject_hyperparams", "inject_stateful_hyperparams"}
    called = "\n".join(row.theirs for row in ROWS if row.peer == "optax")
    schedules = public(optax.schedules, takers)
    assert len(schedules) > 10
    assert [name for name in schedules if f"{name}(" not in called] == []


def test_every_scheduler_of_braintools_is_there():
    base = braintools.optim.LRScheduler
    called = "\n".join(row.theirs for row in ROWS if row.peer == "braintools")
    classes = [
        name
        for name, value in vars(braintools.optim).items()
        if inspect.isclass(value) and issubclass(value, base) and value is not base
    ]
    assert len(classes) > 10
    assert [name for name in classes if f"{name}(" not in called] == []


def test_the_guide_names_the_versions_that_gave_the_numbers():
    assert set(STORED) == {"versions", *STORED["versions"]}
    for peer, version in STORED["versions"].items():
        assert f"{peer} {version}" in " ".join(GUIDE.split())


def test_no_number_is_stored_that_no_row_asks_for():
    asked = {(row.peer, row.theirs) for row in ROWS}
    stored = {(peer, call) for peer in STORED["versions"] for call in STORED[peer]}
    assert stored <= asked
