"""ReduceLROnPlateau: the same decisions on the host and compiled, and a memory that is saved."""

import copy
import inspect
import pickle
from typing import Any

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate.transform import for_loop, jit
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from brainsched import (
    LambdaLR,
    PerUpdate,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
    WarmupCosineSchedule,
    WarmupScheduler,
    from_config,
)


class Reference:
    """The documented rules, step by step, in float64 but for the comparison."""

    def __init__(
        self,
        base_lr,
        mode="min",
        factor=0.1,
        patience=10,
        threshold=1e-4,
        threshold_mode="rel",
        cooldown=0,
        min_lr=0.0,
        eps=1e-8,
    ):
        self.rates = list(base_lr)
        self.floors = min_lr if isinstance(min_lr, list) else [min_lr] * len(base_lr)
        self.sign = 1 if mode == "min" else -1
        self.relative = threshold_mode == "rel"
        self.factor, self.patience, self.threshold = factor, patience, threshold
        self.cooldown, self.eps = cooldown, eps
        self.best, self.bad, self.rest = np.float32(np.inf * self.sign), 0, 0

    def step(self, metric):
        metric = np.float32(metric)
        if self.rest:
            self.rest -= 1
            return
        if self.relative:
            size = abs(self.best) if np.isfinite(self.best) else np.float32(0)
            limit = self.best - self.sign * np.float32(self.threshold) * size
        else:
            limit = self.best - np.float32(self.sign * self.threshold)
        if self.sign * metric < self.sign * limit:
            self.best, self.bad = metric, 0
            return
        self.bad += 1
        if self.bad > self.patience:
            self.bad, self.rest = 0, self.cooldown
            for group, rate in enumerate(self.rates):
                lower = max(rate * self.factor, self.floors[group])
                if rate - lower >= self.eps:
                    self.rates[group] = lower


def test_parameters_and_their_order_and_defaults_are_those_of_braintools():
    theirs = inspect.signature(braintools.optim.ReduceLROnPlateau.__init__).parameters
    ours = inspect.signature(ReduceLROnPlateau.__init__).parameters
    named = [(p.name, p.default) for p in ours.values()]
    assert named == [*((p.name, p.default) for p in theirs.values()), ("scheduler", None)]


def test_the_rate_falls_once_patience_is_exceeded():
    scheduler = ReduceLROnPlateau(0.8, factor=0.5, patience=2)
    rates = []
    for loss in [3, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1]:
        scheduler.step(loss)
        rates.append(scheduler.get_last_lr()[0])
    # The third step without an improvement is the eighth, and the eleventh
    np.testing.assert_array_equal(rates, np.array([0.8] * 7 + [0.4] * 3 + [0.2], np.float32))
    assert scheduler.epoch == 11


def test_mode_max_threshold_and_cooldown():
    scheduler = ReduceLROnPlateau(
        1.0, "max", factor=0.5, patience=0, threshold=0.1, threshold_mode="abs", cooldown=2
    )
    rates = []
    for accuracy in [0.5, 0.59, 0.7, 0.7, 0.7, 0.9]:
        scheduler.step(accuracy)
        rates.append(float(scheduler.get_last_lr()[0]))
    # 0.59 is no improvement; the two steps after it are not looked at; 0.7 then is one
    assert rates == [1.0, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert scheduler.best.value == np.float32(0.9)


@pytest.mark.parametrize(
    ("arguments", "reduced"),
    [
        ({"min_lr": 0.3}, [0.5, 0.3, 0.3]),
        ({"min_lr": 1.0}, [1.0, 1.0, 1.0]),
        ({"eps": 0.3}, [0.5, 0.5, 0.5]),
        ({"eps": 0.25}, [0.5, 0.25, 0.25]),  # not smaller than eps
        ({"min_lr": 0.25, "eps": 0.3}, [0.5, 0.5, 0.5]),
        ({"min_lr": 0.4, "eps": 0.2}, [0.5, 0.5, 0.5]),  # 0.1 to the limit is less than eps
        ({"min_lr": 0.4, "eps": 0.05}, [0.5, 0.4, 0.4]),
        ({"eps": 0.0}, [0.5, 0.25, 0.125]),
    ],
)
def test_limits_of_a_reduction(arguments, reduced):
    scheduler = ReduceLROnPlateau(1.0, factor=0.5, patience=0, **arguments)
    scheduler.step(1.0)
    for expected in reduced:
        scheduler.step(1.0)
        assert scheduler.get_last_lr() == [np.float32(expected)]


@settings(max_examples=25)
@given(
    base_lr=st.lists(st.sampled_from([0.0, 1e-3, 0.1, 3.0]), min_size=1, max_size=2),
    mode=st.sampled_from(["min", "max"]),
    factor=st.floats(0.05, 0.95),
    patience=st.integers(0, 2),
    threshold=st.sampled_from([0.0, 1e-4, 0.1]),
    threshold_mode=st.sampled_from(["rel", "abs"]),
    cooldown=st.integers(0, 2),
    min_lr=st.sampled_from([0.0, 1e-3, 0.01]),
    eps=st.sampled_from([0.0, 1e-8, 1e-3]),
    metrics=st.lists(
        st.floats(-2, 2, width=32, allow_subnormal=False) | st.sampled_from([np.nan, np.inf, 1.0]),
        min_size=30,
        max_size=30,
    ),
)
def test_host_and_compiled_decide_as_the_rules_say(base_lr, metrics, **arguments):
    assume(min(base_lr) >= arguments["min_lr"])
    reference = Reference(base_lr, **arguments)
    host = ReduceLROnPlateau(base_lr, **arguments)
    compiled = copy.deepcopy(host)
    expected = []
    for metric in metrics:
        reference.step(metric)
        host.step(metric)
        expected.append(np.array(reference.rates, np.float32))
        expected[-1][expected[-1] < np.finfo(np.float32).tiny] = 0  # as compiled code has it
        np.testing.assert_allclose(host.get_last_lr(), expected[-1], rtol=1.2e-7)
        np.testing.assert_array_equal(host.best.value, reference.best)
    host_rates = np.stack(host.get_last_lr())

    def step(metric):
        compiled.step(metric)
        return jnp.stack(compiled.current_lrs.value)

    rates = for_loop(step, jnp.float32(metrics))
    np.testing.assert_allclose(rates, expected, rtol=1.2e-7)
    np.testing.assert_array_equal(rates[-1], host_rates)
    for name in ("best", "num_bad_epochs", "cooldown_counter", "reductions", "last_epoch"):
        np.testing.assert_array_equal(getattr(compiled, name).value, getattr(host, name).value)


def test_metrics_are_compared_in_float32_wherever_they_are():
    """As float64, 1 - 1e-9 would be below 1; as float32 it is 1."""
    for metric in (1 - 1e-9, np.float64(1 - 1e-9), jnp.float32(1), np.array(1 - 1e-9)):
        scheduler = ReduceLROnPlateau(1.0, factor=0.5, patience=0, threshold=0.0)
        scheduler.step(1.0)
        scheduler.step(metric)
        assert scheduler.get_last_lr() == [0.5]


def test_steps_on_the_host_stay_there(compilations):
    scheduler = ReduceLROnPlateau([1.0, 0.5], factor=0.5, patience=0)
    for loss in (2.0, np.float32(1.0), 1, np.array(1.0)):
        scheduler.step(loss)
    values = [getattr(scheduler, name).value for name in ("best", "num_bad_epochs", "reductions")]
    assert {type(value) for value in [*values, *scheduler.get_last_lr()]} == {np.ndarray}
    assert scheduler.get_last_lr() == [0.25, 0.125]
    assert compilations == []


def test_a_restored_best_stays_where_the_best_was_put():
    scheduler = ReduceLROnPlateau(0.5)
    saved = scheduler.state_dict()
    device = jax.devices()[0]
    scheduler.best.value = jax.device_put(scheduler.best.value, device)
    scheduler.load_state_dict({**saved, "best": 0.25})
    assert scheduler.best.value == 0.25
    assert isinstance(scheduler.best.value, jax.Array)
    assert scheduler.best.value.committed


def test_a_loss_on_the_device_is_not_waited_for():
    scheduler = ReduceLROnPlateau(1.0, factor=0.5, patience=0)
    with jax.transfer_guard_device_to_host("disallow"):
        for _ in range(3):
            scheduler.step(jnp.float32(1.0))
    assert scheduler.get_last_lr() == [0.25]
    assert isinstance(scheduler.best.value, jax.Array)
    scheduler.step(1.0)
    assert scheduler.get_last_lr() == [0.125]


def test_step_to_an_epoch_sets_the_epoch_alone():
    scheduler = ReduceLROnPlateau(1.0, factor=0.5, patience=0)
    scheduler.step(1.0, epoch=7)
    jit(lambda epoch: scheduler.step(1.0, epoch))(9)
    assert scheduler.epoch == 9
    assert scheduler.get_last_lr() == [0.5]


def test_a_rate_set_by_hand_lasts_until_the_next_step():
    scheduler = ReduceLROnPlateau(1.0)
    scheduler.apply(lambda rate: rate * 3)
    assert scheduler.get_last_lr() == [3.0]
    assert scheduler.get_lr() == [1.0]
    scheduler.step(1.0)
    assert scheduler.get_last_lr() == [1.0]


def test_a_group_added_later_runs_at_its_base_rate_times_the_reductions_so_far():
    scheduler = ReduceLROnPlateau(1.0, factor=0.5, patience=0, min_lr=[0.4, 0.0])
    optimizer = braintools.optim.Adam(lr=scheduler)
    optimizer.register_trainable_weights({"w": brainstate.ParamState(jnp.ones(2))})
    for _ in range(3):
        scheduler.step(1.0)
    optimizer.add_param_group({"v": brainstate.ParamState(jnp.ones(2))}, lr=0.8)
    np.testing.assert_array_equal(scheduler.get_last_lr(), np.array([0.4, 0.2], np.float32))
    assert optimizer.param_groups[1]["lr"].value == np.float32(0.2)


COPIES = {
    "state_dict": lambda scheduler, fresh: fresh.load_state_dict(scheduler.state_dict()),
    "pickled state_dict": lambda scheduler, fresh: fresh.load_state_dict(
        pickle.loads(pickle.dumps(scheduler.state_dict()))
    ),
    "graph": lambda scheduler, fresh: brainstate.graph.update_states(
        fresh, brainstate.graph.treefy_states(scheduler)
    ),
}


@pytest.mark.parametrize("channel", COPIES)
@pytest.mark.parametrize("stop", [1, 3, 4, 6])
def test_a_restored_memory_decides_as_if_never_stopped(channel, stop):
    losses = [2.0, 1.5, 1.5, 1.5, 1.5, 1.4, 1.5, 1.5, 1.5, 1.5]
    arguments: dict[str, Any] = {"base_lr": 1.0, "factor": 0.5, "patience": 1, "cooldown": 1}
    straight, stopped, resumed = (ReduceLROnPlateau(**arguments) for _ in range(3))
    for loss in losses:
        straight.step(loss)
    for loss in losses[:stop]:
        stopped.step(loss)
    COPIES[channel](stopped, resumed)
    for scheduler in (resumed, copy.deepcopy(stopped), pickle.loads(pickle.dumps(stopped))):
        for loss in losses[stop:]:
            scheduler.step(loss)
        assert scheduler.state_dict() == straight.state_dict()
    assert straight.get_last_lr() == [0.25]


def test_a_state_dict_of_braintools_brings_its_memory_and_its_reductions():
    arguments: dict[str, Any] = {"base_lr": 0.8, "factor": 0.5, "patience": 1}
    theirs = braintools.optim.ReduceLROnPlateau(**arguments)
    for loss in [1.0, 1.0, 1.0, 1.0, 1.0, 1.0]:
        theirs.step(loss)
    scheduler = ReduceLROnPlateau(**arguments)
    scheduler.load_state_dict(theirs.state_dict())
    assert scheduler.get_last_lr() == [np.float32(0.2)]
    assert scheduler.num_bad_epochs.value == 1
    scheduler.step(1.0)
    assert scheduler.get_last_lr() == [np.float32(0.1)]


@pytest.mark.parametrize(("base_lr", "applied"), [(0.8, 0.0), (0.0, 0.0), (0.5, 0.8)])
def test_a_state_dict_of_braintools_whose_rate_no_reduction_gives_has_none(base_lr, applied):
    arguments: dict[str, Any] = {"base_lr": base_lr, "factor": 0.5}
    state = braintools.optim.ReduceLROnPlateau(**arguments).state_dict()
    scheduler = ReduceLROnPlateau(**arguments)
    scheduler.load_state_dict(state | {"current_lrs": [applied]})
    assert scheduler.reductions.value == 0


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        ({"best": "low"}, TypeError, r"state_dict\['best'\] must be a number, got 'low'"),
        ({"reductions": -1}, ValueError, r"state_dict\['reductions'\] must not be negative"),
        ({"num_bad_epochs": 0.5}, ValueError, r"state_dict\['num_bad_epochs'\] must be an integer"),
        ({"cooldown_counter": [1]}, TypeError, r"\['cooldown_counter'\] must be a number"),
        ({"worst": 1}, ValueError, "unknown key 'worst'"),
    ],
)
def test_a_damaged_memory_is_refused_and_changes_nothing(damage, error, message):
    scheduler = ReduceLROnPlateau(1.0, factor=0.5, patience=0)
    scheduler.step(1.0)
    scheduler.step(1.0)
    before = scheduler.state_dict()
    fresh = ReduceLROnPlateau(1.0, factor=0.5, patience=0).state_dict()
    with pytest.raises(error, match=message):
        scheduler.load_state_dict({**fresh, **damage})
    assert scheduler.state_dict() == before
    del fresh["reductions"]
    with pytest.raises(ValueError, match="no 'reductions'"):
        scheduler.load_state_dict(fresh)


@pytest.mark.parametrize(
    "metric", ["low", None, True, [1.0], jnp.ones(2), jnp.array(True), 1j, 10**400]
)
def test_a_metric_that_is_no_number_is_refused(metric):
    scheduler = ReduceLROnPlateau()
    with pytest.raises((TypeError, ValueError), match=r"^metric must"):
        scheduler.step(metric)
    assert scheduler.epoch == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"mode": "lowest"}, ValueError, "mode must be one of 'min', 'max', got 'lowest'"),
        ({"threshold_mode": "relative"}, ValueError, "threshold_mode must be one of 'rel', 'abs'"),
        ({"factor": 1.0}, ValueError, r"factor must be a number in \(0, 1\)"),
        ({"factor": 0}, ValueError, r"factor must be a number in \(0, 1\)"),
        ({"patience": -1}, ValueError, "patience must be an integer from 0"),
        ({"patience": 2.5}, ValueError, "patience must be an integer"),
        ({"cooldown": -1}, ValueError, "cooldown must be an integer from 0"),
        ({"threshold": -1}, ValueError, "threshold must be finite and not negative"),
        ({"threshold": 1.0}, ValueError, "threshold must be below 1 in modes 'min' and 'rel'"),
        ({"min_lr": -1}, ValueError, "min_lr must be finite and not negative"),
        ({"min_lr": []}, ValueError, "min_lr must have at least one rate"),
        ({"eps": np.nan}, ValueError, "eps must be finite"),
        (
            {"base_lr": [1e-3, 1e-5], "min_lr": 1e-4},
            ValueError,
            "min_lr must be at most .* which is 1e-05 in group 1, got 0.0001",
        ),
        ({"scheduler": 0.1}, TypeError, "scheduler must be a scheduler of brainsched, got float"),
        ({"scheduler": ReduceLROnPlateau()}, TypeError, "scheduler needs a rate that is a func"),
        ({"scheduler": StepLR(), "base_lr": 0.1}, ValueError, "base_lr is that of scheduler: lea"),
        ({"scheduler": StepLR(0.1), "min_lr": 0.2}, ValueError, "min_lr must be at most .* 0.1"),
    ],
)
def test_bad_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        ReduceLROnPlateau(**arguments)


def test_what_needs_a_function_of_the_epoch_says_why_it_cannot_be():
    scheduler = ReduceLROnPlateau()
    for call in (
        lambda: scheduler.lr_at(0),
        lambda: scheduler.plot(10),
        lambda: SequentialLR([WarmupScheduler(), scheduler], [5]),
    ):
        with pytest.raises(TypeError, match=r"metrics of the run.*Plateau\(scheduler=plan"):
            call()


def test_a_step_under_a_plain_jax_transformation_is_refused():
    scheduler = ReduceLROnPlateau()
    with pytest.raises(brainstate.TraceContextError, match=r"jit, vmap"):
        jax.jit(scheduler.step)(1.0)
    assert scheduler.epoch == 0


@pytest.mark.parametrize(("mode", "metric"), [("min", -1.0), ("max", -1.0), ("min", 1.0)])
def test_a_metric_that_stands_still_is_no_improvement_whatever_its_sign(mode, metric):
    scheduler = ReduceLROnPlateau(0.5, mode=mode, factor=0.5, patience=2)
    for _ in range(4):
        scheduler.step(metric)
    assert scheduler.get_last_lr() == [0.25]


@pytest.mark.parametrize(
    ("mode", "metric", "better"),
    [("min", -1.0, -1.2), ("max", -1.0, -0.8), ("min", 1.0, 0.8), ("max", 1.0, 1.2)],
)
def test_better_by_a_share_of_the_best_is_an_improvement_whatever_its_sign(mode, metric, better):
    scheduler = ReduceLROnPlateau(0.5, mode=mode, threshold=0.1)
    scheduler.step(metric)
    scheduler.step(metric + (better - metric) / 4)  # by less than a tenth
    assert scheduler.best.value == np.float32(metric)
    scheduler.step(better)
    assert scheduler.best.value == np.float32(better)


@pytest.mark.parametrize(
    ("arguments", "metrics", "best"),
    [
        ({"mode": "max"}, [1.0, 1.9, 2.5], [1.0, 1.0, 2.5]),
        ({"mode": "max", "threshold_mode": "abs"}, [1.0, 1.9, 2.5], [1.0, 1.0, 2.5]),
        ({"threshold_mode": "abs"}, [5.0, 4.5, 3.5], [5.0, 5.0, 3.5]),
    ],
)
def test_a_threshold_of_one_is_refused_only_as_a_share_that_leaves_nothing(
    arguments, metrics, best
):
    scheduler = ReduceLROnPlateau(0.5, threshold=1.0, **arguments)
    for metric, expected in zip(metrics, best, strict=True):
        scheduler.step(metric)
        assert scheduler.best.value == expected


def test_a_checkpoint_whose_best_is_nan_is_refused():
    state = ReduceLROnPlateau(0.5).state_dict() | {"best": np.array(np.nan)}
    scheduler = ReduceLROnPlateau(0.5)
    scheduler.step(1.0)
    with pytest.raises(ValueError, match=r"state_dict\['best'\] must not be NaN"):
        scheduler.load_state_dict(state)
    assert scheduler.best.value == 1.0


# A plan that is reduced


def behind_a_warm_up(base_lr=0.1, **arguments):
    plan = PerUpdate(WarmupScheduler(base_lr, 2), 4)
    return ReduceLROnPlateau(factor=0.5, patience=0, scheduler=plan, **arguments)


# By hand: a rise over 8 updates; the first loss is the best, each later one halves the rate.
RISE = [*(np.arange(8) / 80), *[0.05] * 4, *[0.025] * 4]


def test_a_plateau_behind_a_warm_up_steps_each_update_and_judges_each_epoch():
    scheduler = behind_a_warm_up([0.1, 0.2])
    seen = []
    for _ in range(4):
        for _ in range(4):
            seen.append(np.stack(scheduler.get_last_lr()))
            scheduler.step()
        scheduler.observe(3.0)
    np.testing.assert_allclose(seen, np.outer(RISE, [1, 2]), rtol=1e-6)
    assert (scheduler.epoch, scheduler.reductions.value) == (16, 3)
    assert scheduler.base_lrs == [0.1, 0.2]


def test_it_does_the_same_compiled_in_a_loop_and_with_an_optimizer():
    scheduler = behind_a_warm_up()
    optimizer = braintools.optim.SGD(lr=scheduler)
    optimizer.register_trainable_weights({"w": brainstate.ParamState(jnp.ones(2))})

    def update(_):
        rate = optimizer.param_groups[0]["lr"].value
        scheduler.step()
        return rate

    @jit
    def epoch(loss):
        rates = for_loop(update, jnp.arange(4))
        scheduler.observe(loss)
        return rates

    seen = np.concatenate([epoch(jnp.float32(3.0)) for _ in range(4)])
    np.testing.assert_allclose(seen, RISE, rtol=1e-6)
    host = behind_a_warm_up()
    for name in ("last_epoch", *host._memory):
        assert name in scheduler.state_dict()
    for expected in seen:
        assert host.get_last_lr() == [expected]
        host.step()
        if host.epoch % 4 == 0:
            host.observe(3.0)
    assert host.state_dict() == scheduler.state_dict()


def test_step_with_a_metric_does_both_and_to_an_epoch_without_one_does_not_judge():
    scheduler = ReduceLROnPlateau(factor=0.5, patience=0, scheduler=WarmupScheduler(0.8, 4))
    scheduler.step(3.0)
    assert (scheduler.epoch, scheduler.applied_rates) == (1, [np.float32(0.2)])
    scheduler.step(3.0)
    assert (scheduler.epoch, scheduler.applied_rates) == (2, [np.float32(0.2)])
    scheduler.step(epoch=8)
    assert (scheduler.epoch, scheduler.applied_rates) == (8, [np.float32(0.4)])
    scheduler.step(3.0, epoch=2)
    assert (scheduler.epoch, scheduler.applied_rates) == (2, [np.float32(0.1)])


def test_its_least_rate_does_not_lift_the_plan():
    plan = WarmupCosineSchedule([0.8, 0.4], 4, 12)
    scheduler = ReduceLROnPlateau(factor=0.5, patience=0, min_lr=[0.3, 0.1], scheduler=plan)
    rates = []
    for _ in range(13):
        rates.append(np.stack(scheduler.get_last_lr()))
        scheduler.step()
        if scheduler.epoch in (2, 3, 4):
            scheduler.observe(1.0)
    by_hand = np.asarray(plan.lr_at(range(13)), np.float64)
    times = np.where(np.arange(13) < 3, 0, np.where(np.arange(13) < 4, 1, 2))[:, None]
    by_hand = np.maximum(by_hand * 0.5**times, np.minimum(by_hand, [0.3, 0.1]))
    np.testing.assert_allclose(rates, by_hand, rtol=1e-6)


@pytest.mark.parametrize("stop", [3, 8, 11])
def test_resumed_copied_and_rebuilt_it_goes_on_as_if_never_stopped(stop):
    def update(scheduler):
        scheduler.step()
        if scheduler.epoch % 4 == 0:
            scheduler.observe(3.0)

    stopped, resumed = behind_a_warm_up([0.1, 0.2]), behind_a_warm_up([0.1, 0.2])
    for _ in range(stop):
        update(stopped)
    resumed.load_state_dict(pickle.loads(pickle.dumps(stopped.state_dict())))
    rebuilt = from_config(stopped.config)
    rebuilt.load_state_dict(stopped.state_dict(plain=True))
    schedulers = [stopped, resumed, rebuilt, copy.deepcopy(resumed)]
    schedulers.append(pickle.loads(pickle.dumps(resumed)))
    for epoch in range(stop, 16):
        for scheduler in schedulers:
            np.testing.assert_allclose(scheduler.get_last_lr(), np.multiply(RISE[epoch], [1, 2]))
            update(scheduler)


def test_a_group_added_later_joins_the_plan_and_its_reductions():
    scheduler = behind_a_warm_up()
    optimizer = braintools.optim.Adam(lr=scheduler)
    optimizer.register_trainable_weights({"w": brainstate.ParamState(jnp.ones(2))})
    for loss in (3.0, 3.0):
        scheduler.observe(loss)
    scheduler.step(epoch=4)
    optimizer.add_param_group({"v": brainstate.ParamState(jnp.ones(2))}, lr=0.8)
    np.testing.assert_allclose(scheduler.get_last_lr(), [0.025, 0.2])


def test_a_plan_that_gives_no_rate_raises_when_its_epoch_comes_and_changes_nothing():
    scheduler = ReduceLROnPlateau(scheduler=LambdaLR(0.1, lambda epoch: 1.0 - epoch))
    scheduler.step()
    with pytest.raises(ValueError, match=r"group 0 the rate -0\.1 at epoch 2: a rate must be fini"):
        scheduler.step()
    assert scheduler.epoch == 1
