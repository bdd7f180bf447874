"""Hypothesis strategies for every schedule, alone and composed, of any number of param groups."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

import brainsched
from schedule_references import SCHEDULES

MOST = 40  # epochs: the length of what has one, so that a few dozen epochs see all of it

rates = st.one_of(st.just(0.0), st.floats(1e-6, 10.0))
counts = st.integers(1, MOST)
lengths = counts | st.integers(1, 10 * MOST).map(lambda tenths: tenths / 10)
lengths_or_none = st.just(0) | lengths
counts_or_none = st.integers(0, MOST)
factors = st.floats(0.01, 1.0)
strategies = st.sampled_from(["linear", "cos", "sqrt", "polynomial"])
shares = st.floats(0.0, 1.0)
epochs = st.lists(st.integers(0, MOST), max_size=5, unique=True).map(sorted)


def half(epoch):
    """Return a multiplier, as a user's function."""
    return jnp.where(epoch < MOST // 2, 1.0, 0.5)


def inverse(epoch):
    """Return a multiplier, as a user's function."""
    return 1 / (1 + epoch)


def base_lrs(groups: int) -> st.SearchStrategy:
    return st.lists(rates, min_size=groups, max_size=groups)


@st.composite
def piecewise(draw, groups):
    boundaries = draw(epochs)
    one = st.floats(0.0, 2.0)
    row = one if draw(st.booleans()) else st.lists(one, min_size=groups, max_size=groups)
    values = draw(st.lists(row, min_size=len(boundaries) + 1, max_size=len(boundaries) + 1))
    base_lr = draw(base_lrs(groups))
    # Rates that seem to be given twice are warned of.
    assume(np.float32(np.max(values)) != np.float32(max(base_lr)))
    return brainsched.PiecewiseConstantSchedule(base_lr, boundaries, values)


@st.composite
def piecewise_linear(draw, groups):
    boundaries = draw(epochs.filter(bool))
    one = st.floats(0.0, 2.0)
    entry = one if draw(st.booleans()) else st.lists(one, min_size=groups, max_size=groups)
    values = draw(st.lists(entry, min_size=len(boundaries), max_size=len(boundaries)))
    base_lr = draw(base_lrs(groups))
    assume(np.float32(np.max(values)) != np.float32(max(base_lr)))
    return brainsched.PiecewiseLinearSchedule(base_lr, boundaries, values)


@st.composite
def warmup_cosine(draw, groups, floor):
    warmup = draw(lengths_or_none)
    total = warmup + draw(lengths)
    base = draw(base_lrs(groups))
    return brainsched.WarmupCosineSchedule(base, warmup, total, draw(rates), **draw(floor(base)))


def floors(base_lrs):
    """Return a strategy for the arguments of a floor: one rate, one for each group, or a share."""
    lists = st.tuples(*(st.floats(0.0, base) for base in base_lrs)).map(list)
    alike = st.floats(0.0, min(base_lrs))
    absolute = st.fixed_dictionaries({"eta_min": alike | lists})
    return st.just({}) | absolute | st.fixed_dictionaries({"eta_min_ratio": shares})


@st.composite
def falling(draw, cls, groups, arguments):
    base = draw(base_lrs(groups))
    drawn = {name: draw(strategy) for name, strategy in arguments.items()}
    return cls(base, **drawn, **draw(floors(base)))


@st.composite
def cyclic(draw, groups):
    low = draw(base_lrs(groups))
    return brainsched.CyclicLR(
        low,
        [rate + draw(rates) for rate in low],
        draw(counts),
        draw(st.one_of(st.none(), counts)),
        draw(st.sampled_from(["triangular", "triangular2", "exp_range"])),
        draw(factors),
    )


def single(groups: int, rows: Sequence[Any] = SCHEDULES) -> dict[str, st.SearchStrategy]:
    """Return a strategy for each schedule that is not made of others, by the name of its class.

    Without one of its own here, a class has the arguments of its reference rows.
    """
    base = base_lrs(groups)
    functions = st.sampled_from([half, inverse])
    arguments = {
        "ExponentialDecayLR": (base, lengths, st.floats(0.1, 1.5), lengths, st.booleans()),
        "LinearLR": (base, factors, factors, lengths_or_none),
        "ConstantLR": (base, factors, lengths_or_none),
        "WarmupScheduler": (base, lengths_or_none, base),
        "LambdaLR": (base, functions | st.lists(functions, min_size=groups, max_size=groups)),
    }
    with_floors: dict[str, dict[str, st.SearchStrategy]] = {
        "StepLR": {"step_size": lengths, "gamma": factors},
        "MultiStepLR": {"milestones": epochs, "gamma": factors},
        "ExponentialLR": {"gamma": factors},
        "CosineAnnealingLR": {"T_max": lengths},
        "CosineAnnealingWarmRestarts": {
            "T_0": lengths,
            "T_mult": st.integers(1, 3),
            "decay": factors,
        },
        "InverseSqrtLR": {
            "warmup_steps": lengths_or_none,
            "timescale": st.none() | lengths,
            "warmup_start_lr": rates,
        },
        "InverseTimeDecayLR": {
            "decay_steps": lengths,
            "decay_rate": st.floats(0.0, 2.0),
            "staircase": st.booleans(),
        },
        "PolynomialLR": {"total_iters": lengths, "power": st.floats(0.1, 3.0)},
        "OneCycleLR": {"total_steps": lengths, "pct_start": st.floats(0.1, 0.9)},
        "WSD": {
            "warmup_steps": lengths_or_none,
            "stay_steps": lengths_or_none,
            "decay_steps": lengths,
            "warmup_start_lr": base,
            "decay_strategy": strategies,
            "cycles": st.integers(1, 3),
        },
    }
    built = {name: st.builds(getattr(brainsched, name), *args) for name, args in arguments.items()}
    for name, keywords in with_floors.items():
        built[name] = falling(getattr(brainsched, name), groups, keywords)
    of_rows: dict[str, st.SearchStrategy] = {}
    for cls, _, given, *_ in rows:
        before = of_rows.get(cls.__name__, st.nothing())
        of_rows[cls.__name__] = before | st.builds(partial(cls, **given), base)
    return {
        **of_rows,
        **built,
        "PiecewiseConstantSchedule": piecewise(groups),
        "PiecewiseLinearSchedule": piecewise_linear(groups),
        "WarmupCosineSchedule": warmup_cosine(groups, floors),
        "CyclicLR": cyclic(groups),
    }


@st.composite
def sequential(draw, parts):
    milestones = draw(epochs.filter(bool))
    schedulers = [draw(parts) for _ in range(len(milestones) + 1)]
    return brainsched.SequentialLR(schedulers, milestones)


@st.composite
def extended(draw, parts):
    at = draw(counts_or_none)
    return brainsched.Extension(draw(parts), at, at + draw(counts), at + draw(counts))


def composed(groups: int) -> st.SearchStrategy:
    """Return a strategy for compositions of compositions."""

    def of(parts):
        chained = st.builds(brainsched.ChainedScheduler, st.lists(parts, min_size=1, max_size=3))
        stretched = st.builds(brainsched.PerUpdate, parts, st.integers(1, 7), st.booleans())
        branched = st.builds(
            brainsched.Branch, parts, counts_or_none, counts, st.none() | rates, strategies
        )
        return sequential(parts) | chained | stretched | branched | extended(parts)

    # A user's function is compiled for each example, even on the host; half a minute a test.
    leaves = st.one_of(*(leaf for name, leaf in single(groups).items() if name != "LambdaLR"))
    return of(st.recursive(leaves, of, max_leaves=4))
