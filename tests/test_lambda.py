"""LambdaLR: a user's function, on the host and compiled."""

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import ParamState

from brainsched import LambdaLR
from schedule_references import slowly


def test_one_function_for_each_group():
    scheduler = LambdaLR([0.1, 0.2], [lambda epoch: 0.5**epoch, lambda epoch: 1.0])
    expected = np.array([[0.1, 0.2], [0.05, 0.2], [0.025, 0.2]], np.float32)
    np.testing.assert_array_equal(scheduler.lr_at(range(3)), expected)
    np.testing.assert_array_equal(jax.jit(scheduler.lr_at)(jnp.arange(3)), expected)
    assert scheduler.max_groups == 2


def test_a_function_is_given_one_float64_whatever_the_shape_of_the_epochs():
    seen = []

    def factor(epoch):
        seen.append((epoch.shape, epoch.dtype))
        return jnp.array([1.0, 0.5, 0.25])[jnp.minimum(epoch.astype(int), 2)]

    scheduler = LambdaLR(1.0, factor)
    rates = scheduler.lr_at(np.array([[0, 1], [2, 9]]))[..., 0]
    np.testing.assert_array_equal(rates, np.array([[1, 0.5], [0.25, 0.25]], np.float32))
    assert scheduler.lr_at([]).shape == (0, 1)
    assert set(seen) == {((), np.dtype(np.float64))}


def test_a_function_steps_on_the_host_and_in_compiled_code_alike():
    scheduler = LambdaLR(0.1, lambda epoch: jnp.exp(-0.1 * epoch))
    expected = scheduler.lr_at(range(6))[:, 0]
    seen = [scheduler.get_last_lr()[0]]
    for _ in range(5):
        scheduler.step()
        seen.append(scheduler.get_last_lr()[0])
    np.testing.assert_array_equal(np.array(seen), expected)
    assert scheduler.epoch == 5


def test_a_negative_multiplier_raises_on_the_host_and_is_zero_in_compiled_code():
    scheduler = LambdaLR([0.5, 0.25], [lambda epoch: 1.0, lambda epoch: 1.0 - epoch / 2])
    message = r"LambdaLR gives param group 1 the rate -0.125 at epoch 3"
    with pytest.raises(ValueError, match=message):
        scheduler.lr_at([[1, 2], [3, 4]])
    for _ in range(2):
        scheduler.step()
    with pytest.raises(ValueError, match=message):
        scheduler.step()
    assert (scheduler.epoch, scheduler.applied_rates) == (2, [0.5, 0.0])
    brainstate.transform.jit(scheduler.step)()
    assert (scheduler.epoch, scheduler.applied_rates) == (3, [0.5, 0.0])
    assert jax.jit(scheduler.lr_at)(4).tolist() == [0.5, 0.0]


def test_a_multiplier_that_is_negative_by_rounding_is_zero_everywhere():
    scheduler = LambdaLR(0.5, lambda epoch: 0.3 - epoch * 0.1)
    assert 0.3 - 3 * 0.1 < 0
    assert scheduler.lr_at(3).item() == jax.jit(scheduler.lr_at)(3).item() == 0.0


def test_a_schedule_with_a_function_is_built_inside_compiled_code():
    rates = jax.jit(lambda base: LambdaLR(base, slowly).lr_at(20))(0.5)
    np.testing.assert_array_equal(rates, LambdaLR(0.5, slowly).lr_at(20))
    rates = jax.jit(lambda t: LambdaLR(0.5, slowly).lr_at(t))(20)
    np.testing.assert_array_equal(rates, LambdaLR(0.5, slowly).lr_at(20))


def test_an_error_inside_a_users_function_reaches_the_user():
    with pytest.raises(ZeroDivisionError):
        LambdaLR(0.1, lambda epoch: 1 / 0)


def test_more_groups_than_functions_are_an_error_when_the_group_is_added():
    scheduler = LambdaLR(0.1, [lambda epoch: 1.0])
    optimizer = braintools.optim.SGD(lr=scheduler)
    optimizer.register_trainable_weights({"a": ParamState(jnp.ones(2))})
    with pytest.raises(ValueError, match="param group 1 has no rate"):
        optimizer.add_param_group({"b": ParamState(jnp.ones(2))})


BAD = [
    (0.1, 0.5, TypeError, r"lr_lambda must be a sequence of"),
    (0.1, [], ValueError, r"the schedule has 0 column"),
    (
        [0.1, 0.2],
        [lambda epoch: 1.0],
        ValueError,
        r"param group 1 has no rate: the schedule has 1 column",
    ),
    (
        0.1,
        lambda epoch: jnp.ones(3),
        ValueError,
        r"the result of lr_lambda must be a scalar, got an array of shape \(3,\)",
    ),
    (
        0.1,
        [lambda epoch: epoch > 3],
        TypeError,
        r"the result of lr_lambda\[0\] must hold real numbers, got an array of bool",
    ),
]


@pytest.mark.parametrize(("base_lr", "lr_lambda", "error", "message"), BAD)
def test_bad_functions_are_refused(base_lr, lr_lambda, error, message):
    with pytest.raises(error, match=message):
        LambdaLR(base_lr, lr_lambda)
