"""What holds for every schedule, alone and composed, whatever its arguments."""

import json
import pickle
import warnings

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate.transform import for_loop, jit
from hypothesis import given
from hypothesis import strategies as st

import brainsched
from schedule_strategies import MOST, composed, single

# As chains of anything do.
pytestmark = pytest.mark.filterwarnings("ignore:ChainedScheduler uses the base rate")

NAMES = [*single(1), "composed"]
LIFE = 3 * MOST

# Every example of a compiled schedule is compiled, which takes most of the time of this file. The
# rows of the references are compiled as well, with more kinds of arguments.
compiled_examples = hypothesis.settings(max_examples=3)
few_examples = hypothesis.settings(max_examples=8)
host_examples = hypothesis.settings(max_examples=20)


@st.composite
def schedulers(draw, name):
    groups = draw(st.integers(1, 3))
    return draw(composed(groups) if name == "composed" else single(groups)[name])


def test_every_schedule_that_is_a_function_of_the_epoch_is_here():
    compositions = {"SequentialLR", "ChainedScheduler", "PerUpdate", "Branch", "Extension"}
    others = {"ReduceLROnPlateau", *compositions}
    assert {*NAMES, *others} - {"composed"} == set(brainsched.schedules.__all__)


@pytest.mark.parametrize("name", NAMES)
@compiled_examples
@given(data=st.data())
def test_host_compiled_loop_vmap_and_jump_give_the_same_bits(name, data):
    scheduler = data.draw(schedulers(name))
    start = data.draw(st.integers(0, LIFE))
    epochs = np.arange(start, start + 8)
    expected = scheduler.lr_at(epochs)

    scheduler.step(start)
    for row in expected:  # step by step on the host
        np.testing.assert_array_equal(scheduler.get_last_lr(), row)
        scheduler.step()
    for epoch, row in zip(epochs, expected, strict=True):
        scheduler.step(epoch)
        np.testing.assert_array_equal(scheduler.get_last_lr(), row)
        np.testing.assert_array_equal(scheduler.get_lr(), row)

    def step(_):
        rates = jnp.stack(scheduler.current_lrs.value)
        scheduler.step()
        return rates

    def jump(epoch):
        scheduler.step(epoch)
        return jnp.stack(scheduler.current_lrs.value)

    @jit
    def compiled(epochs):
        scheduler.step(epochs[0])
        looped = for_loop(step, epochs)
        jumped = for_loop(jump, epochs[::-1])[::-1]
        return looped, jumped, scheduler.lr_at(epochs), jax.vmap(scheduler.lr_at)(epochs)

    for rates in compiled(jnp.asarray(epochs)):
        np.testing.assert_array_equal(rates, expected)


@pytest.mark.parametrize("name", NAMES)
@host_examples
@given(data=st.data())
def test_rates_are_finite_and_not_negative_in_float32(name, data):
    rates = data.draw(schedulers(name)).lr_at(np.arange(LIFE))
    assert rates.dtype == np.float32
    assert np.isfinite(rates).all()
    assert (rates >= 0).all()


@pytest.mark.parametrize("name", NAMES)
@host_examples
@given(data=st.data())
def test_rates_at_many_epochs_are_the_stack_of_those_at_each(name, data):
    scheduler = data.draw(schedulers(name))
    epochs = np.asarray(data.draw(st.lists(st.integers(0, 2**31 - 1), min_size=4, max_size=4)))
    stacked = np.stack([scheduler.lr_at(int(epoch)) for epoch in epochs])
    np.testing.assert_array_equal(scheduler.lr_at(epochs), stacked)
    square = scheduler.lr_at(epochs.reshape(2, 2))
    np.testing.assert_array_equal(square, stacked.reshape(2, 2, -1))


@pytest.mark.parametrize("name", NAMES)
@few_examples
@given(data=st.data())
def test_resuming_at_any_epoch_is_no_interruption(name, data):
    scheduler = data.draw(schedulers(name))
    fresh = brainsched.from_config(scheduler.config, import_functions=True)
    for _ in range(data.draw(st.integers(0, LIFE))):
        scheduler.step()
    if data.draw(st.booleans()):
        saved = pickle.loads(pickle.dumps(scheduler.state_dict()))
    else:
        saved = json.loads(json.dumps(scheduler.state_dict(plain=True), allow_nan=False))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # that the schedule has changed
        fresh.load_state_dict(saved)
    for _ in range(5):
        assert fresh.epoch == scheduler.epoch
        np.testing.assert_array_equal(fresh.get_last_lr(), scheduler.get_last_lr())
        fresh.step()
        scheduler.step()


@pytest.mark.parametrize("name", NAMES)
@few_examples
@given(data=st.data())
def test_a_config_builds_the_same_schedule(name, data):
    scheduler = data.draw(schedulers(name))
    rebuilt = brainsched.from_config(scheduler.config, import_functions=True)
    assert rebuilt.config == scheduler.config
    assert type(rebuilt) is type(scheduler)
    np.testing.assert_array_equal(rebuilt.lr_at(range(LIFE)), scheduler.lr_at(range(LIFE)))
