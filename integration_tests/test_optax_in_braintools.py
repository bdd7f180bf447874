"""Optimizers of braintools whose transformation has the rate: what they report is what trains."""

import brainstate
import braintools
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from brainstate.transform import jit

from brainsched import StepLR, scale_by_scheduler

NOT_HERE = "rates of this optimizer are those of scale_by_scheduler"


def wrapped(tx):
    return optax.MultiSteps(tx, 1).gradient_transformation()


CHAINS = {
    "alone": lambda tx: tx,
    "in a chain": lambda tx: optax.chain(optax.clip(9.0), optax.chain(optax.identity(), tx)),
    "in MultiSteps": wrapped,
}


def trained_by(tx, groups=("a",), **options):
    """Return an optimizer of two parameters, and them."""
    weights = {key: brainstate.ParamState(jnp.zeros(2)) for key in groups}
    optimizer = braintools.optim.OptaxOptimizer(tx=tx, **options)
    optimizer.register_trainable_weights(weights)
    return optimizer, weights


def halving():
    """Return a transformation whose rate is 1/2, and half of it after each update."""
    return scale_by_scheduler(StepLR(0.5, 1, 0.5), {"*": 0})


def reported(optimizer):
    """Return the rate of the first group as braintools reports it, in six ways."""
    ways = {
        "current_lr": optimizer.current_lr,
        "get_last_lr": optimizer.get_last_lr()[0],
        "group": optimizer.param_groups[0]["lr"].value,
        "scheduler": optimizer.lr.get_last_lr()[0],
        "checkpoint": optimizer.state_dict()["lr"],
        "graph": brainstate.graph.treefy_states(optimizer)["_current_lr"].value,
    }
    assert len(set(map(float, ways.values()))) == 1, ways
    return float(optimizer.current_lr)


def moved(optimizer, weights, step=None):
    before = {key: np.asarray(weight.value, float) for key, weight in weights.items()}
    (step or optimizer.step)({key: jnp.ones(2) for key in weights})
    return [float((before[k] - np.asarray(w.value, float))[0]) for k, w in weights.items()]


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("lr", [{}, {"lr": 0.75}], ids=["no lr", "lr"])
@pytest.mark.parametrize("compiled", [False, True], ids=["host", "jit"])
def test_the_rate_that_is_reported_is_the_one_that_the_latest_update_was_scaled_by(
    chain, lr, compiled
):
    optimizer, weights = trained_by(CHAINS[chain](halving()), **lr)
    step = jit(optimizer.step) if compiled else optimizer.step
    assert reported(optimizer) == 0.5  # that of the update to come
    for expected in (0.5, 0.25, 0.125):
        assert moved(optimizer, weights, step) == [expected]
        assert reported(optimizer) == expected


def test_a_compiled_program_may_read_the_rate():
    optimizer, weights = trained_by(halving())

    @jit
    def train_step():
        optimizer.step({key: jnp.ones(2) for key in weights})
        return optimizer.current_lr

    assert [float(train_step()) for _ in range(3)] == [0.5, 0.25, 0.125]


def test_the_first_group_is_the_one_that_is_reported():
    scheduler = StepLR({"body": 0.5, "head": 0.25})
    tx = scale_by_scheduler(scheduler, {"h": "head", "*": "body"})
    optimizer, weights = trained_by(tx, ("b", "h"))
    assert moved(optimizer, weights) == [0.5, 0.25]
    assert reported(optimizer) == 0.5


def by_attribute(optimizer):
    optimizer.current_lr = 0.125


def by_group(optimizer):
    optimizer.param_groups[0]["lr"].value = 0.125


def by_function(optimizer):
    optimizer.lr_apply(lambda rate: rate * 2)


def by_step(optimizer):
    optimizer.lr.step()


@pytest.mark.parametrize("write", [by_attribute, by_group, by_function, by_step])
def test_a_rate_that_would_not_be_applied_cannot_be_set(write):
    optimizer, weights = trained_by(halving())
    with pytest.raises(RuntimeError, match=f"{NOT_HERE}.*learning_rate_scale"):
        write(optimizer)
    assert moved(optimizer, weights) == [reported(optimizer)] == [0.5]


def test_a_scheduler_of_braintools_beside_it_cannot_set_a_rate_either():
    theirs = braintools.optim.StepLR(0.75, 1)
    optimizer, weights = trained_by(halving(), lr=theirs)
    with pytest.raises(RuntimeError, match=NOT_HERE):
        theirs.step()
    assert moved(optimizer, weights) == [optimizer.current_lr] == [0.5]


def test_a_scheduler_of_braintools_that_another_optimizer_has_too_goes_on_there():
    theirs = braintools.optim.ConstantLR(0.75, 1.0, 0)
    other = braintools.optim.SGD(lr=theirs)
    other.register_trainable_weights({"a": brainstate.ParamState(jnp.zeros(2))})
    optimizer, weights = trained_by(halving(), lr=theirs)
    assert moved(optimizer, weights) == [reported(optimizer)] == [0.5]
    assert moved(other, other.param_groups[0]["params"]) == [other.current_lr] == [0.75]


def test_a_rate_that_optax_joins_with_another_is_warned_of_too():
    rate = optax.join_schedules([StepLR(0.5).as_optax(), optax.constant_schedule(0.25)], [9])
    optimizer, weights = trained_by(optax.sgd(rate))
    with pytest.warns(UserWarning, match="OptaxOptimizer trains at the rate of StepLR"):
        assert moved(optimizer, weights) == [0.5]


@pytest.mark.parametrize("compiled", [False, True], ids=["host", "jit"])
def test_a_rate_without_a_state_is_not_reported_and_a_warning_says_so_once(compiled):
    rate = StepLR(0.5, 1, 0.5).as_optax()
    alone = optax.sgd(rate)  # where nothing reports a rate, in silence
    alone.update(jnp.ones(2), alone.init(jnp.ones(2)))
    assert rate(0) == 0.5
    optimizer, weights = trained_by(optax.sgd(rate))
    step = jit(optimizer.step) if compiled else optimizer.step
    message = (
        r"OptaxOptimizer trains at the rate of StepLR.as_optax\(\).*current_lr, 0.001: .*"
        r"scale_by_scheduler"
    )
    with pytest.warns(UserWarning, match=message):
        assert moved(optimizer, weights, step) == [0.5]
    assert moved(optimizer, weights, step) == [0.25]


def test_other_values_and_schedulers_that_are_reported_are_no_reason_to_warn():
    decay = optax.add_decayed_weights(StepLR(0.5, 1, 0.5).as_optax())
    optimizer, weights = trained_by(optax.chain(decay, halving()))
    assert moved(optimizer, weights) == [reported(optimizer)] == [0.5]
    state = optax.sgd(rate := StepLR(0.5).as_optax()).init(jnp.ones(2))
    optax.sgd(rate).update(jnp.ones(2), state)


def test_the_scale_is_reported_too():
    optimizer, weights = trained_by(halving())
    optimizer.opt_state.value.hyperparams["learning_rate_scale"] = jnp.float32(0.25)
    assert moved(optimizer, weights) == [reported(optimizer)] == [0.125]


def test_checkpoints_bring_the_rate_with_them():
    saved, weights = trained_by(halving())
    moved(saved, weights), moved(saved, weights)
    for restore in (
        lambda optimizer: optimizer.load_state_dict(saved.state_dict()),
        lambda optimizer: brainstate.graph.update_states(
            optimizer, brainstate.graph.treefy_states(saved)
        ),
    ):
        optimizer, weights = trained_by(halving())
        restore(optimizer)
        assert reported(optimizer) == 0.25
        assert moved(optimizer, weights) == [reported(optimizer)] == [0.125]


def test_a_scheduler_that_is_attached_takes_the_report_over_and_says_that_it_is_not_read():
    optimizer, weights = trained_by(halving())
    StepLR(0.75).attach_optimizer(optimizer)
    with pytest.warns(UserWarning, match="does not read its learning rate from the scheduler"):
        assert moved(optimizer, weights) == [0.5]
    reference = brainstate.graph.treefy_states(optimizer)["_current_lr"]
    assert not {"_read", "_refuse", "_optimizer", "_group"} & set(vars(reference))


@pytest.mark.parametrize("transform", [lambda step: step, jit], ids=["host", "jit"])
def test_a_transformation_that_asks_a_scheduler_which_the_optimizer_does_not_have_raises(transform):
    scheduler = StepLR(0.5, 1, 0.5)
    optimizer, weights = trained_by(optax.chain(optax.scale_by_schedule(scheduler)))
    with pytest.raises(RuntimeError, match=r"give it to both, .*OptaxOptimizer\(tx=tx, lr=sched"):
        moved(optimizer, weights, transform(optimizer.step))
    scheduler.attach_optimizer(optimizer)
    assert moved(optimizer, weights, transform(optimizer.step)) == [optimizer.current_lr] == [0.5]
