"""Hypothesis strategies for every schedule, alone and composed, of any number of param groups."""

import jax.numpy as jnp
import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

import brainsched

MOST = 40  # epochs: the length of what has one, so that a few dozen epochs see all of it

rates = st.one_of(st.just(0.0), st.floats(1e-6, 10.0))
counts = st.integers(1, MOST)
counts_or_none = st.integers(0, MOST)
factors = st.floats(0.01, 1.0)
strategies = st.sampled_from(["linear", "cos", "sqrt"])
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
def warmup_cosine(draw, groups):
    warmup = draw(counts_or_none)
    total = warmup + draw(counts)
    return brainsched.WarmupCosineSchedule(
        draw(base_lrs(groups)), warmup, total, draw(rates), draw(rates)
    )


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


def single(groups: int) -> dict[str, st.SearchStrategy]:
    """Return a strategy for each schedule that is not made of others, by the name of its class."""
    base = base_lrs(groups)
    functions = st.sampled_from([half, inverse])
    arguments = {
        "StepLR": (base, counts, factors),
        "MultiStepLR": (base, epochs, factors),
        "ExponentialLR": (base, factors),
        "ExponentialDecayLR": (base, counts, st.floats(0.1, 1.5), counts, st.booleans()),
        "CosineAnnealingLR": (base, counts, rates),
        "CosineAnnealingWarmRestarts": (
            base,
            counts,
            st.integers(1, 3),
            rates,
            st.just(0),
            factors,
        ),
        "InverseSqrtLR": (base, counts_or_none, st.none() | counts, rates),
        "InverseTimeDecayLR": (base, counts, st.floats(0.0, 2.0), st.booleans()),
        "PolynomialLR": (base, counts, st.floats(0.1, 3.0)),
        "LinearLR": (base, factors, factors, counts_or_none),
        "ConstantLR": (base, factors, counts_or_none),
        "WarmupScheduler": (base, counts_or_none, rates),
        "OneCycleLR": (base, counts, st.none(), st.none(), st.floats(0.1, 0.9)),
        "LambdaLR": (base, functions | st.lists(functions, min_size=groups, max_size=groups)),
        "WSD": (
            *(base, counts_or_none, counts_or_none, counts, rates, rates),
            *(strategies, st.just(0), st.integers(1, 3)),
        ),
    }
    built = {name: st.builds(getattr(brainsched, name), *args) for name, args in arguments.items()}
    return {
        **built,
        "PiecewiseConstantSchedule": piecewise(groups),
        "PiecewiseLinearSchedule": piecewise_linear(groups),
        "WarmupCosineSchedule": warmup_cosine(groups),
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
