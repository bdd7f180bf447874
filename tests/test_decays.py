"""Exponential and inverse decays: what their reference rows do not show."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from brainsched import ExponentialDecayLR, InverseSqrtLR, InverseTimeDecayLR


@pytest.mark.parametrize(
    ("decay_rate", "end_value"), [(0.5, 0.25), (1.0, 0.25), (1.0, 3.0), (2.0, 0.25), (2.0, 3.0)]
)
def test_the_end_value_of_a_decay_bounds_it_as_in_optax(decay_rate, end_value):
    scheduler = ExponentialDecayLR(1.0, 10, decay_rate, end_value=end_value)
    theirs = optax.exponential_decay(1.0, 10, decay_rate, end_value=end_value)
    counts = jnp.arange(1, 40)  # optax has the first rate as it is
    np.testing.assert_allclose(scheduler.lr_at(counts)[:, 0], jax.vmap(theirs)(counts), rtol=1e-6)


def test_timescale_is_the_warm_up_or_ten_thousand_unless_given():
    """As in Hugging Face's get_inverse_sqrt_schedule."""
    assert InverseSqrtLR(warmup_steps=7).timescale == 7
    assert InverseSqrtLR(warmup_steps=0).timescale == 10_000
    assert InverseSqrtLR(warmup_steps=7, timescale=9).timescale == 9


@pytest.mark.parametrize("cls", [ExponentialDecayLR, InverseTimeDecayLR])
@pytest.mark.parametrize("staircase", [1, "no"])
def test_a_staircase_is_a_bool(cls, staircase):
    with pytest.raises(TypeError, match=f"staircase must be True or False, got {staircase!r}"):
        cls(staircase=staircase)
