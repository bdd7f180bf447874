"""The floor of every schedule that falls: for all groups, for each, or as a share of its rate."""

from typing import Any

import brainstate
import braintools
import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

import brainsched as bs

# How each is built with 20 epochs of its own; its floor is the argument after the dash, if another.
FALLING: dict[str, dict[str, Any]] = {
    "StepLR": {"step_size": 4},
    "MultiStepLR": {"milestones": [4, 8, 12]},
    "ExponentialLR": {"gamma": 0.6},
    "ExponentialDecayLR-end_value": {"decay_steps": 2, "decay_rate": 0.3},
    "CosineAnnealingLR": {"T_max": 20},
    "CosineAnnealingWarmRestarts": {"T_0": 7},
    "WarmupCosineSchedule": {"warmup_steps": 5, "total_steps": 20},
    "InverseSqrtLR": {"warmup_steps": 2},
    "InverseTimeDecayLR": {"decay_steps": 1},
    "PolynomialLR": {"total_iters": 20},
    "OneCycleLR": {"total_steps": 20},
    "WSD": {"warmup_steps": 5, "stay_steps": 5, "decay_steps": 10},
}
BASES = {"body": 0.1, "head": 0.02, "bias": 0.004}
FLOORS = {"body": 0.05, "head": 0.02, "bias": 0.001}
EPOCHS = np.arange(40)


def build(case, base_lr, suffix="", floor=None, **arguments):
    name, _, argument = case.partition("-")
    given = {} if floor is None else {f"{argument or 'eta_min'}{suffix}": floor}
    return getattr(bs, name)(base_lr, **FALLING[case], **given, **arguments)


@pytest.mark.parametrize("case", FALLING)
def test_each_group_has_a_floor_of_its_own_as_a_list_by_name_and_as_a_share(case):
    alone = [
        build(case, base, floor=floor).lr_at(EPOCHS)[:, 0]
        for base, floor in zip(BASES.values(), FLOORS.values(), strict=True)
    ]
    listed = build(case, list(BASES.values()), floor=list(FLOORS.values()))
    np.testing.assert_array_equal(listed.lr_at(EPOCHS), np.stack(alone, axis=1))
    reordered = {name: FLOORS[name] for name in ("bias", "body", "head")}
    named = build(case, BASES, floor=reordered)
    np.testing.assert_array_equal(named.lr_at(EPOCHS), listed.lr_at(EPOCHS))
    np.testing.assert_array_equal(jax.jit(named.lr_at)(EPOCHS), named.lr_at(EPOCHS))

    shared = build(case, BASES, "_ratio", 0.25)
    by_hand = [build(case, base, floor=base * 0.25).lr_at(EPOCHS)[:, 0] for base in BASES.values()]
    np.testing.assert_allclose(shared.lr_at(EPOCHS), np.stack(by_hand, axis=1), rtol=1.2e-7)
    if case != "CosineAnnealingWarmRestarts":  # which begins again, and so is never there
        np.testing.assert_allclose(shared.lr_at(10**6), [0.025, 0.005, 0.001], rtol=1e-6)

    for scheduler in (listed, named, shared):
        rebuilt = bs.from_config(scheduler.config)
        assert rebuilt.config == scheduler.config
        np.testing.assert_array_equal(rebuilt.lr_at(EPOCHS), scheduler.lr_at(EPOCHS))
    matplotlib.use("agg")
    lines = named.plot(40).lines[:3]
    np.testing.assert_array_equal(lines[2].get_ydata(), named.lr_at(EPOCHS)[:, 2])
    matplotlib.pyplot.close("all")


@pytest.mark.parametrize("case", FALLING)
def test_a_floor_above_the_base_rate_of_a_group_names_it_and_both(case):
    name = case.partition("-")[2] or "eta_min"
    message = f"^{name} must be at most the base rate .* which is 0.004 in group 2, got 0.01"
    with pytest.raises(ValueError, match=message):
        build(case, list(BASES.values()), floor=0.01)
    with pytest.raises(ValueError, match=f"^{name} must be at most .* 0 in group 1, got 0.01"):
        build(case, [0.1, 0.0], floor=[0.01, 0.01])
    assert build(case, 0.1, floor=np.float32(0.1)).lr_at(0).size  # the same rate, rounded
    assert jax.jit(lambda rate: build(case, rate, floor=0.01).lr_at(10**6))(0.001).size


@pytest.mark.parametrize("case", FALLING)
def test_a_share_is_one_and_the_only_floor(case):
    name = case.partition("-")[2] or "eta_min"
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=f"^{name}_ratio must be"):
            build(case, 0.1, "_ratio", share)
    with pytest.raises(ValueError, match=f"^give {name} or {name}_ratio, not both, got 0.01"):
        build(case, 0.1, "_ratio", 0.1, **{name: 0.01})
    assert build(case, [0.1, 0.0], "_ratio", 0.1).lr_at(10**6)[1] == 0  # frozen, and stays so


@pytest.mark.parametrize("composed", [False, True])
def test_a_group_that_is_added_below_the_floor_is_refused_and_changes_nothing(composed):
    scheduler = bs.CosineAnnealingLR(0.1, 20, eta_min=0.01)
    if composed:
        scheduler = bs.SequentialLR([bs.WarmupScheduler(0.1, 5), scheduler], [5])
    optimizer = braintools.optim.SGD(lr=scheduler)
    optimizer.register_trainable_weights({"w": brainstate.ParamState(jnp.ones(2))})
    with pytest.raises(ValueError, match=r"eta_min must be at most .* 0.001 in group 1, got 0.01"):
        optimizer.add_param_group({"v": brainstate.ParamState(jnp.ones(2))}, lr=0.001)
    assert len(optimizer.param_groups) == 1


def test_a_warm_up_from_below_the_floor_is_not_lifted():
    scheduler = bs.InverseSqrtLR(0.4, 4, eta_min=0.3)
    np.testing.assert_allclose(
        scheduler.lr_at([0, 1, 4, 5, 16])[:, 0], [0, 0.1, 0.4, 0.4 * np.sqrt(0.8), 0.3], rtol=1e-6
    )
    scheduler = bs.WarmupCosineSchedule(0.4, 4, 8, eta_min=0.3)
    np.testing.assert_allclose(scheduler.lr_at([0, 1, 4, 8])[:, 0], [0, 0.1, 0.4, 0.3])


@pytest.mark.parametrize(
    "build",
    [
        lambda start: bs.WarmupScheduler(BASES, 4, start),
        lambda start: bs.WarmupCosineSchedule(BASES, 4, 9, start),
        lambda start: bs.WSD(BASES, 4, 9, 9, start),
        lambda start: bs.InverseSqrtLR(BASES, 4, warmup_start_lr=start),
    ],
)
def test_each_group_may_begin_at_a_rate_of_its_own(build):
    expected = np.array([[0.05, 0.02, 0.001], [0.075, 0.02, 0.0025], [0.1, 0.02, 0.004]])
    for start in (FLOORS, list(FLOORS.values())):
        np.testing.assert_allclose(build(start).lr_at([0, 2, 4]), expected, rtol=1e-6)
    with pytest.raises(ValueError, match="warmup_start_lr must have the names that base_lr gives"):
        build({"body": 0.1})


def test_a_decay_that_grows_has_a_ceiling_for_each_group():
    scheduler = bs.ExponentialDecayLR([0.1, 0.2], 1, 2.0, end_value=[0.3, 0.5])
    np.testing.assert_allclose(scheduler.lr_at([0, 1, 2]), [[0.1, 0.2], [0.2, 0.4], [0.3, 0.5]])


def test_every_layer_falls_to_the_same_share_of_its_rate():
    """BEiT's floor of one rate would make the lowest layers rise."""
    patterns = ["e/*", *(f"b/{i}/*" for i in range(24)), "h/*"]
    rates, _ = bs.layerwise_decay(5e-4, 0.65, patterns)
    with pytest.raises(ValueError, match=r"eta_min must be at most .* group \d+, got 1e-06"):
        bs.WarmupCosineSchedule(rates, 5, 50, eta_min=1e-6)
    found = bs.WarmupCosineSchedule(rates, 5, 50, eta_min_ratio=0.002).lr_at([5, 50])
    np.testing.assert_allclose(found[1] / found[0], 0.002, rtol=1e-5)


def test_the_end_of_a_branch_is_a_rate_for_each_group_or_a_share():
    old = bs.ConstantLR(BASES, 1.0, 0)
    for plan in (
        bs.Branch(old, 2, 4, FLOORS),
        bs.cooldown(old, 2, 4, FLOORS),
        bs.cooldown(old, 2, 4, list(FLOORS.values())),
    ):
        np.testing.assert_allclose(
            plan.lr_at([2, 4, 6]),
            [[0.1, 0.02, 0.004], [0.075, 0.02, 0.0025], [0.05, 0.02, 0.001]],
            rtol=1e-6,
        )
    for plan in (
        bs.Branch(old, 2, 4, end_lr_ratio=0.5),
        bs.cooldown(old, 2, 4, eta_min_ratio=0.5),
        bs.rewarm(bs.ConstantLR(BASES, 0.5, 99), 2, 4, [0.05, 0.01, 0.002]),
    ):
        np.testing.assert_allclose(plan.lr_at(6), [0.05, 0.01, 0.002], rtol=1e-6)
        assert bs.from_config(plan.config).config == plan.config


def test_an_exponential_fall_is_a_straight_line_of_the_logarithm_for_each_group():
    scheduler = bs.WSD(BASES, 0, 0, 10, eta_min_ratio=0.01, decay_strategy="exponential")
    by_hand = np.outer(0.01 ** (np.arange(11) / 10), list(BASES.values()))
    np.testing.assert_allclose(scheduler.lr_at(range(11)), by_hand, rtol=1e-6)
    for end in ({}, {"eta_min_ratio": 0.0}, {"eta_min": [0.1, 0.0, 0.0]}):
        with pytest.raises(ValueError, match="eta_min must be above 0 for an exponential fall"):
            bs.WSD(BASES, decay_strategy="exponential", **end)
