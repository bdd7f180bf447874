"""What a user is likely to get wrong where a scheduler meets its optimizer, and what is said."""

import inspect
import warnings

import brainstate
import braintools
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from brainstate.transform import jit

from brainsched import (
    ConstantLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
    check_resumed,
    scale_by_scheduler,
)

# Which algorithm an added group gets is measured in test_every_optimizer.py; here, its rate is.
pytestmark = pytest.mark.filterwarnings("ignore:braintools 0.3.0 trains every group:UserWarning")


def parameter():
    return brainstate.ParamState(jnp.zeros(2))


def sgd(lr, keys=("a",)):
    """Return an optimizer with a param group for each of ``keys``."""
    optimizer = braintools.optim.SGD(lr=lr)
    optimizer.register_trainable_weights({keys[0]: parameter()})
    for key in keys[1:]:
        optimizer.add_param_group({key: parameter()})
    return optimizer


def moved(optimizer):
    """Return how far one step under a gradient of 1 moves the parameter of the first group."""
    (weight,) = optimizer.param_groups[0]["params"].values()
    before = np.asarray(weight.value, float)
    keys = [key for group in optimizer.param_groups for key in group["params"]]
    optimizer.step({key: jnp.ones(2) for key in keys})
    return float((before - np.asarray(weight.value, float))[0])


# attach_optimizer


NO_OPTIMIZERS = {
    "of optax": (lambda: optax.sgd(0.1), "GradientTransformationExtraArgs"),
    "the class": (lambda: braintools.optim.SGD, "the class SGD"),
    "a list": (lambda: [sgd(0.1)], "list"),
    "a model": (lambda: brainstate.nn.Linear(2, 2), "Linear"),
    "parameters": (lambda: {"a": parameter()}, "dict"),
}


@pytest.mark.parametrize("case", NO_OPTIMIZERS)
def test_what_is_no_optimizer_of_braintools_is_refused_with_what_takes_a_schedule(case):
    make, found = NO_OPTIMIZERS[case]
    with pytest.raises(TypeError, match=rf"as braintools.optim.Adam.* got {found}.*as_optax\(\)"):
        StepLR(0.5).attach_optimizer(make())


@pytest.mark.parametrize(
    "make", [lambda: StepLR(0.5, 1), lambda: ReduceLROnPlateau(0.5)], ids=["StepLR", "plateau"]
)
def test_stepping_a_scheduler_that_was_not_attached_beside_an_optimizer_warns_once(make):
    optimizer, scheduler = sgd(0.25), make()
    step = (lambda: scheduler.step(1.0)) if "Plateau" in repr(scheduler) else scheduler.step
    with pytest.warns(
        UserWarning, match=r"SGD was built with a rate of its own, 0\.25.*attach_opt"
    ):
        step()
    step()
    assert moved(optimizer) == optimizer.current_lr == 0.25


def test_a_scheduler_beside_an_optimizer_that_follows_another_is_silent():
    optimizer, decay = sgd(StepLR(0.25)), StepLR(0.5)
    decay.step()
    assert moved(optimizer) == optimizer.current_lr == 0.25


def test_a_scheduler_beside_an_optimizer_whose_transformation_asks_it_is_silent():
    rate = StepLR(0.5, 1, 0.5)
    tx = optax.scale_by_schedule(lambda count: -rate.current_lrs.value[0])
    optimizer = braintools.optim.OptaxOptimizer(tx=tx)
    optimizer.register_trainable_weights({"a": parameter()})
    rate.step()
    assert moved(optimizer) == 0.25


def test_the_default_base_rate_in_the_place_of_the_optimizers_is_warned_of():
    optimizer = sgd(0.25)
    with pytest.warns(
        UserWarning, match=r"default of 0.001.*the rate of SGD: give it base_lr=0.25"
    ):
        StepLR(step_size=1).attach_optimizer(optimizer)
    assert moved(optimizer) == pytest.approx(0.001)


def test_a_base_rate_under_another_name_is_called_by_it():
    with pytest.warns(UserWarning, match="give it max_lr=0.25"):
        OneCycleLR(total_steps=9).attach_optimizer(sgd(0.25))


def test_a_base_rate_that_was_given_replaces_the_optimizers_in_silence():
    for scheduler in (StepLR(1e-3), SequentialLR([StepLR(), StepLR()], [3])):
        scheduler.attach_optimizer(sgd(0.25))
    StepLR().attach_optimizer(sgd(1e-3))
    StepLR().attach_optimizer(sgd(ConstantLR(0.25, 1.0)))


# add_param_group


BAD_PARAMS = {
    "of PyTorch": {"params": [parameter()], "lr": 0.1},
    "of PyTorch, with names": {"params": {"b": parameter()}, "lr": 0.1},
    "arrays": {"b": jnp.zeros(2)},
}


@pytest.mark.parametrize("case", BAD_PARAMS)
def test_params_that_are_no_states_are_refused_with_the_form_of_a_group(case):
    with pytest.raises(
        TypeError, match=r"must be a State, got .*add_param_group\(params, lr=0.1\)"
    ):
        sgd(StepLR(0.5)).add_param_group(BAD_PARAMS[case])


@pytest.mark.parametrize("name", ["learning_rate", "base_lr", "momentum"])
def test_a_hyperparameter_that_no_group_has_is_refused_and_nothing_is_lost(name):
    optimizer = sgd(StepLR(0.5))
    with pytest.raises(
        TypeError, match=rf"takes lr and weight_decay.* got {name}=0.1: .*scale_by_s"
    ):
        optimizer.add_param_group({"b": parameter()}, **{name: 0.1})
    assert len(optimizer.param_groups) == 1
    assert moved(optimizer) == 0.5


@pytest.mark.parametrize("lr", [StepLR(0.1), [0.1], optax.constant_schedule(0.1)])
def test_a_rate_of_a_group_that_is_no_number_is_refused_with_the_way_to_a_course_of_its_own(lr):
    with pytest.raises(TypeError, match=r"lr of param group 1 must be .*a column of values"):
        sgd(StepLR(0.5)).add_param_group({"b": parameter()}, lr=lr)


def test_groups_in_another_order_than_the_names_of_base_lr_are_refused():
    optimizer = sgd(StepLR({"body": 0.25, "head": 0.5, "gain": 0.125}))
    with pytest.raises(ValueError, match="has the name 'head' for param group 1, got name='gain'"):
        optimizer.add_param_group({"g": parameter()}, name="gain")
    optimizer.add_param_group({"h": parameter()}, name="head")
    optimizer.add_param_group({"g": parameter()}, name="gain")
    optimizer.add_param_group({"i": parameter()}, name="more")
    assert optimizer.get_last_lr() == [0.25, 0.5, 0.125, 0.125]
    assert optimizer.param_groups[2]["name"] == "gain"


# optimizer.step


@pytest.mark.parametrize(
    "grads", [None, jnp.ones(2), 1.0, ({"a": jnp.ones(2)}, 1.0), [jnp.ones(2)]]
)
def test_what_is_no_dictionary_of_gradients_is_refused_with_how_to_take_them(grads):
    with pytest.raises(
        TypeError, match=r"grads must be a dictionary, as brainstate.*grad\(loss, st"
    ):
        sgd(StepLR(0.5)).step(grads)


@pytest.mark.parametrize("compiled", [False, True], ids=["host", "jit"])
@pytest.mark.parametrize("keys", [[], [("a",), ("b",)], ["a", "c"]])
def test_gradients_under_other_keys_than_the_parameters_are_refused(keys, compiled):
    optimizer = sgd(StepLR(0.5), ["a", "b"])
    step = jit(optimizer.step) if compiled else optimizer.step
    missing = len({"a", "b"} - set(keys))
    with pytest.raises(
        ValueError, match=f"grads has no gradient for '.', and {missing} of 2 are mi"
    ):
        step({key: jnp.ones(2) for key in keys})
    assert moved(optimizer) == 0.5


def test_a_step_without_gradients_is_refused():
    with pytest.raises(TypeError, match=r"grads must be a dictionary.*got NoneType"):
        sgd(StepLR(0.5)).step()


# load_state_dict of the optimizer


def after_steps(count, keys=("a",)):
    """Return an optimizer and its scheduler after so many steps of both."""
    optimizer = sgd(StepLR(0.5, 1, 0.5), keys)
    for _ in range(count):
        moved(optimizer)
        optimizer.lr.step()
    return optimizer, optimizer.lr


@pytest.mark.parametrize("found", [None, "checkpoint.msgpack", [1]])
def test_a_state_of_an_optimizer_that_is_no_dict_is_refused(found):
    with pytest.raises(TypeError, match=r"must be a dict, as optimizer.state_dict\(\) gives, got"):
        sgd(StepLR(0.5)).load_state_dict(found)


def test_the_scheduler_s_state_or_a_whole_checkpoint_in_its_place_is_refused_with_the_cure():
    optimizer, scheduler = after_steps(1)
    whole = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    for wrong in (whole, whole["scheduler"]):
        with pytest.raises(ValueError, match=r"give all that optimizer.state_dict\(\) gave"):
            optimizer.load_state_dict(wrong)
    for wrong in (whole, whole["optimizer"], {}):
        with pytest.raises(ValueError, match=r"give all that scheduler.state_dict\(\) gave"):
            scheduler.load_state_dict(wrong)
    with pytest.raises(ValueError, match=r"unknown key 'epoch'.*give what scheduler.state_dict"):
        scheduler.load_state_dict({**whole["scheduler"], "epoch": 3})


def test_loading_before_the_weights_are_registered_says_so():
    optimizer = braintools.optim.SGD(lr=StepLR(0.5))
    with pytest.raises(
        ValueError, match="optimizer has 0: register the weights and add the groups"
    ):
        optimizer.load_state_dict(after_steps(1)[0].state_dict())


def test_an_optimizer_that_was_restored_without_its_scheduler_is_warned_of_at_the_next_step():
    saved, scheduler = after_steps(2)
    optimizer, fresh = after_steps(0)
    optimizer.load_state_dict(saved.state_dict())
    assert moved(optimizer) == optimizer.current_lr == 0.125
    with pytest.warns(UserWarning, match=r"SGD was restored.*StepLR was not.*scheduler.state_dict"):
        fresh.step()
    fresh.step()
    assert fresh.epoch == scheduler.epoch == 2


RESTORED = {
    "with its scheduler": lambda scheduler: scheduler.load_state_dict(
        after_steps(2)[1].state_dict()
    ),
    "by its epoch": lambda scheduler: scheduler.step(2),
    "to begin anew": lambda scheduler: scheduler.step(0),
}


@pytest.mark.parametrize("way", RESTORED)
def test_a_scheduler_whose_epoch_was_said_steps_in_silence(way):
    optimizer, scheduler = after_steps(0)
    optimizer.load_state_dict(after_steps(2)[0].state_dict())
    RESTORED[way](scheduler)
    scheduler.step()


def test_an_optimizer_that_goes_back_steps_in_silence():
    optimizer, scheduler = after_steps(0)
    moved(optimizer)
    optimizer.load_state_dict(optimizer.state_dict())
    scheduler.step()
    built_there = sgd(StepLR(0.5, 1, 0.5, last_epoch=2))
    built_there.load_state_dict(after_steps(2)[0].state_dict())
    built_there.lr.step()
    assert built_there.current_lr == 0.0625


# load_state_dict of the scheduler


class HalvingLR(LRScheduler):
    def formula(self, epoch, base_lrs, xp):
        return base_lrs * 0.5**epoch


def test_the_state_of_another_class_is_refused_with_the_way_to_go_on_at_its_epoch():
    saved = after_steps(2)[1].state_dict()
    scheduler = HalvingLR(0.5)
    with pytest.raises(ValueError, match=r"is 'StepLR', but this .* a HalvingLR: .*with step\(2\)"):
        scheduler.load_state_dict(saved)
    scheduler.step(saved["last_epoch"])
    assert scheduler.get_last_lr() == [0.125]


@pytest.mark.parametrize("found", [None, "scheduler.json", [1]])
def test_a_state_of_a_scheduler_that_is_no_dict_is_refused(found):
    with pytest.raises(TypeError, match=r"must be a dict, as scheduler.state_dict\(\) gives, got"):
        StepLR(0.5).load_state_dict(found)


# Where warnings point


def move_to_a_second_optimizer():
    scheduler = StepLR(0.5)
    sgd(scheduler)
    scheduler.attach_optimizer(sgd(0.1))


def attach_without_a_base_rate():
    StepLR().attach_optimizer(braintools.optim.SGD(lr=0.25))


def add_a_group_that_adam_trains():
    sgd(StepLR(0.5), keys=("a", "b"))


def step_with_a_rate_of_its_own():
    optimizer = braintools.optim.Rprop(lr=StepLR(0.5))
    optimizer.register_trainable_weights({"a": parameter()})
    optimizer.step({"a": jnp.ones(2)})


def step_beside_the_optimizer():
    optimizer, scheduler = sgd(0.25), StepLR(0.5)
    scheduler.step()
    assert optimizer.current_lr == 0.25


def step_after_the_optimizer_alone_was_restored():
    saved = sgd(StepLR(0.5))
    moved(saved)
    optimizer = sgd(StepLR(0.5))
    optimizer.load_state_dict(saved.state_dict())
    optimizer.lr.step()


def load_what_another_schedule_saved():
    StepLR(0.5, 20).load_state_dict(StepLR(0.5, 30).state_dict())


def resume_under_another_plan():
    state = scale_by_scheduler(StepLR(0.5, 20), {"*": 0}).init({"a": jnp.ones(2)})
    check_resumed(state, StepLR(0.5, 30))


@pytest.mark.parametrize(
    "mistake",
    [
        move_to_a_second_optimizer,
        attach_without_a_base_rate,
        add_a_group_that_adam_trains,
        step_with_a_rate_of_its_own,
        step_beside_the_optimizer,
        step_after_the_optimizer_alone_was_restored,
        load_what_another_schedule_saved,
        resume_under_another_plan,
    ],
)
def test_a_warning_points_at_the_line_of_the_user(mistake):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mistake()
    lines, first = inspect.getsourcelines(mistake)
    helper, begin = inspect.getsourcelines(sgd)
    places = [range(first, first + len(lines)), range(begin, begin + len(helper))]
    (warning,) = caught
    assert warning.filename == __file__
    assert any(warning.lineno in place for place in places)
