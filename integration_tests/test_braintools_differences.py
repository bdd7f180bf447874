"""What *Coming from another library* says of braintools, row by row, on the version installed.

When one of these fails with a newer braintools, the guide's table needs another column.
"""

import copy
import math
import pickle
from importlib.metadata import version
from typing import Any

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from braintools import optim

IS_OLD = version("braintools").startswith("0.3.")


def optimizer_of(lr: Any) -> tuple[Any, dict[str, brainstate.State]]:
    weights = {"a": brainstate.ParamState(jnp.zeros(()))}
    optimizer = optim.SGD(lr=lr)
    optimizer.register_trainable_weights(weights)
    return optimizer, weights


def moved(optimizer: Any, weights: dict[str, brainstate.State], key: str = "a") -> Any:
    """Return how far a parameter moves down its gradient of 1."""
    before = weights[key].value
    optimizer.step({name: jnp.ones(()) for name in weights})
    return before - weights[key].value


def with_added_group(base_lr: Any, **kwargs: float) -> tuple[Any, dict[str, brainstate.State]]:
    optimizer, weights = optimizer_of(optim.StepLR(base_lr, step_size=1, gamma=0.1))
    added = {"b": brainstate.ParamState(jnp.zeros(()))}
    optimizer.add_param_group(added, **kwargs)
    return optimizer, weights | added


def test_values_are_rates_and_base_lr_is_ignored():
    scheduler = optim.PiecewiseConstantSchedule(5.0, [30], [0.1, 0.01])
    assert float(scheduler.get_lr()[0]) == pytest.approx(0.1)


def test_the_rate_that_is_reported_before_the_first_step():
    optimizer, _ = optimizer_of(optim.WarmupScheduler(0.1, 5, 0.02))
    assert float(optimizer.current_lr) == pytest.approx(0.1 if IS_OLD else 0.02)


@pytest.mark.parametrize("kwargs", [{}, {"lr": 0.5}])
def test_an_added_group_is_never_scheduled_and_trained_by_adam(kwargs):
    optimizer, weights = with_added_group(0.5, **kwargs)
    for gradient in (1.0, 100.0):
        before = weights["b"].value
        optimizer.step({"a": jnp.zeros(()), "b": jnp.asarray(gradient)})
        optimizer.lr.step()
        # The steps of Adam are about as long as its rate, whatever the gradient.
        assert 0.3 < float(before - weights["b"].value) < 0.51


def test_a_group_added_with_a_rate_under_a_list_of_base_rates_breaks_the_scheduler():
    optimizer, _ = with_added_group([0.5, 0.3], lr=0.2)
    with pytest.raises(AttributeError):
        optimizer.lr.step()


def test_attached_to_a_plain_rate_a_scheduler_reports_what_is_not_applied():
    optimizer, weights = optimizer_of(0.3)
    scheduler = optim.StepLR(0.7, step_size=1, gamma=0.1)
    scheduler.attach_optimizer(optimizer)
    scheduler.step()
    assert float(optimizer.current_lr) == pytest.approx(0.07)
    assert float(moved(optimizer, weights)) == pytest.approx(0.3)


def test_the_first_of_two_optimizers_with_one_scheduler_reports_a_stale_rate():
    scheduler = optim.StepLR(0.5, step_size=1, gamma=0.1)
    first, weights = optimizer_of(scheduler)
    optimizer_of(scheduler)
    scheduler.step()
    assert float(first.current_lr) == pytest.approx(0.5)
    assert float(moved(first, weights)) == pytest.approx(0.05)


@pytest.mark.parametrize(
    "scheduler",
    [
        lambda: optim.SequentialLR([optim.ConstantLR(0.1), optim.ConstantLR(0.2)], [2]),
        lambda: optim.ChainedScheduler([optim.ConstantLR(0.1), optim.StepLR(0.1)]),
        lambda: optim.ReduceLROnPlateau(0.1),
        lambda: optim.CosineAnnealingWarmRestarts(0.1),
    ],
)
def test_four_schedulers_cannot_be_stepped_in_compiled_code(scheduler):
    scheduler = scheduler()
    optimizer_of(scheduler)
    metric = (1.0,) if isinstance(scheduler, optim.ReduceLROnPlateau) else ()
    with pytest.raises(jax.errors.ConcretizationTypeError):
        brainstate.transform.jit(lambda: scheduler.step(*metric))()


def test_the_rate_that_is_reported_after_loading_is_the_old_one():
    saved = optim.StepLR(0.5, step_size=1, gamma=0.1)
    saved.step()
    optimizer, weights = optimizer_of(optim.StepLR(0.5, step_size=1, gamma=0.1))
    optimizer.lr.load_state_dict(saved.state_dict())
    assert float(optimizer.current_lr) == pytest.approx(0.5)
    assert float(moved(optimizer, weights)) == pytest.approx(0.05)


def test_whole_state_tools_do_not_see_the_position():
    optimizer, _ = optimizer_of(optim.StepLR(0.5))
    assert not [path for path in brainstate.graph.states(optimizer) if "last_epoch" in path]


def test_a_scheduler_cannot_be_copied_or_pickled():
    with pytest.raises(TypeError):
        copy.deepcopy(optim.StepLR(0.5))
    with pytest.raises(TypeError):
        pickle.dumps(optim.StepLR(0.5))


def test_state_dict_hands_out_live_lists():
    scheduler = optim.StepLR(0.5)
    state = scheduler.state_dict()
    assert state["base_lrs"] is scheduler.base_lrs
    assert state["current_lrs"] is scheduler.current_lrs.value


@pytest.mark.parametrize("boundaries", [[30, 10], [10, 10], [-5, 10]])
def test_wrong_boundaries_are_accepted(boundaries):
    optim.PiecewiseConstantSchedule(1.0, boundaries, [0.1, 0.2, 0.3])


@pytest.mark.parametrize("rate", [math.nan, -0.1])
def test_wrong_rates_are_accepted(rate):
    np.testing.assert_equal(optim.StepLR(rate).get_lr(), [rate])


def test_under_jax_jit_a_scheduler_stands_still():
    scheduler = optim.StepLR(0.5, step_size=1, gamma=0.1)
    step = jax.jit(lambda: (scheduler.step(), scheduler.get_lr()[0])[1])
    assert [float(step()) for _ in range(3)] == pytest.approx([0.05] * 3)


def test_called_with_a_count_a_scheduler_gives_minus_the_present_rate():
    assert float(optim.StepLR(0.5, step_size=1)(3)) == -0.5


def test_step_size_down_of_a_cycle():
    scheduler = optim.CyclicLR(0.0, 1.0, step_size_up=2, step_size_down=6)
    scheduler.step(4)
    assert float(scheduler.get_lr()[0]) == pytest.approx(0.0 if IS_OLD else 2 / 3)


def test_the_state_of_an_optimizer_that_went_through_msgpack():
    optimizer, weights = optimizer_of(0.5)
    moved(optimizer, weights)
    saved = braintools.file.msgpack_to_state_dict(optimizer.state_dict())
    optimizer.load_state_dict(saved)
    states = jax.tree.leaves(
        optimizer.opt_state.value, is_leaf=lambda s: isinstance(s, optax.ScaleByScheduleState)
    )
    kept = any(isinstance(state, optax.ScaleByScheduleState) for state in states)
    assert kept is not IS_OLD
