"""A call that is another library's is told its counterpart here."""

from typing import Any

import braintools
import optax
import pytest
from flax import nnx

import brainsched

bs: Any = brainsched  # what is called here is not what the signatures say
PART = bs.StepLR(0.1, 30)


def sgd(**kwargs):
    return braintools.optim.SGD(**{"lr": 0.1, **kwargs})


OPTIMIZER_CALLS = {
    "StepLR": lambda o: bs.StepLR(o, 30),
    "StepLR by name": lambda o: bs.StepLR(optimizer=o, step_size=30, gamma=0.1),
    "PiecewiseConstantSchedule": lambda o: bs.PiecewiseConstantSchedule(o, [3], [1.0, 0.1]),
    "MultiStepLR": lambda o: bs.MultiStepLR(o, [30, 80]),
    "ConstantLR": lambda o: bs.ConstantLR(o, factor=0.5, total_iters=5),
    "LinearLR": lambda o: bs.LinearLR(o, 0.2, 1.0, 5),
    "PolynomialLR": lambda o: bs.PolynomialLR(o, total_iters=20),
    "ExponentialLR": lambda o: bs.ExponentialLR(o, 0.9),
    "LambdaLR": lambda o: bs.LambdaLR(o, lambda epoch: 0.9**epoch),
    "CosineAnnealingLR": lambda o: bs.CosineAnnealingLR(o, T_max=20, eta_min=0.01),
    "CosineAnnealingWarmRestarts": lambda o: bs.CosineAnnealingWarmRestarts(o, T_0=10, T_mult=2),
    "CyclicLR": lambda o: bs.CyclicLR(o, 0.01, 0.1, step_size_up=3),
    "OneCycleLR": lambda o: bs.OneCycleLR(o, max_lr=0.1, total_steps=20),
    "ReduceLROnPlateau": lambda o: bs.ReduceLROnPlateau(o, "min", factor=0.5),
    "ChainedScheduler": lambda o: bs.ChainedScheduler([PART, PART], optimizer=o),
    "SequentialLR": lambda o: bs.SequentialLR(o, [PART, PART], milestones=[5]),
    "SequentialLR by name": lambda o: bs.SequentialLR(o, schedulers=[PART, PART], milestones=[5]),
}


@pytest.mark.parametrize("call", OPTIMIZER_CALLS)
def test_an_optimizer_as_in_pytorch_is_told_who_is_given_to_whom(call):
    name = call.split()[0]
    message = (
        rf"{name} takes no optimizer, but is given to one: write scheduler = {name}\(\w+, .*"
        rf"last_epoch.*\), and then SGD\(lr=scheduler\) or scheduler\.attach_optimizer\(optimizer\)"
    )
    for optimizer in (sgd(), sgd(lr=bs.StepLR(0.1))):
        with pytest.raises(TypeError, match=message):
            OPTIMIZER_CALLS[call](optimizer)


@pytest.mark.parametrize(
    "optimizer",
    [
        optax.sgd(0.1),
        nnx.Optimizer(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), optax.sgd(0.1), wrt=nnx.Param),
    ],
    ids=["optax", "Flax"],
)
def test_an_optimizer_of_optax_or_flax_is_told_of_the_bridge(optimizer):
    message = r"takes no optimizer.*StepLR\(base_lr.*scheduler\.as_optax\(\) in the place of optax"
    with pytest.raises(TypeError, match=message):
        bs.StepLR(optimizer, 30)


# The name of another library, the class, and what the message says of it.
NAMES = [
    # PyTorch
    ("verbose", "StepLR", r": here print\(scheduler\) shows the epoch and the rates"),
    ("verbose", "ReduceLROnPlateau", r": here print\(scheduler\) shows the epoch and the rates"),
    ("cycle_momentum", "OneCycleLR", ": here the momentum follows a ValueSchedule"),
    ("base_momentum", "CyclicLR", ": here the momentum follows a ValueSchedule"),
    ("three_phase", "OneCycleLR", ": here three straight ways are a PiecewiseLinearSchedule"),
    ("optimizer", "StepLR", r": here the optimizer takes the scheduler, by lr=scheduler"),
    ("lr", "CosineAnnealingLR", ", which is base_lr here"),
    ("lr", "OneCycleLR", ", which is max_lr here"),
    # optax
    ("init_value", "CosineAnnealingLR", ", which is base_lr here"),
    ("init_value", "WarmupCosineSchedule", ", which is warmup_start_lr or base_lr here"),
    ("peak_value", "WarmupCosineSchedule", ", which is base_lr here"),
    ("decay_steps", "CosineAnnealingLR", ", which is T_max here"),
    ("decay_steps", "WarmupCosineSchedule", ", which is total_steps here"),
    ("alpha", "CosineAnnealingLR", ", which is eta_min here"),
    ("end_value", "WarmupCosineSchedule", ", which is eta_min here"),
    ("transition_steps", "ExponentialDecayLR", ", which is decay_steps here"),
    ("transition_steps", "PolynomialLR", ", which is total_iters here"),
    ("boundaries_and_scales", "PiecewiseConstantSchedule", ", which is boundaries or values here"),
    ("schedules", "SequentialLR", ", which is schedulers here"),
    ("boundaries", "SequentialLR", ", which is milestones here"),
    # Keras
    ("initial_learning_rate", "ExponentialDecayLR", ", which is base_lr here"),
    ("first_decay_steps", "CosineAnnealingWarmRestarts", ", which is T_0 here"),
    ("t_mul", "CosineAnnealingWarmRestarts", ", which is T_mult here"),
    ("m_mul", "CosineAnnealingWarmRestarts", ", which is decay here"),
    ("end_learning_rate", "PolynomialLR", ", nor a counterpart of it, as .*CosineAnnealingLR"),
    ("warmup_target", "WarmupCosineSchedule", ", which is base_lr here"),
    # transformers
    ("num_warmup_steps", "WarmupCosineSchedule", ", which is warmup_steps here"),
    ("num_warmup_steps", "WarmupScheduler", ", which is warmup_epochs here"),
    ("num_warmup_steps", "StepLR", ", nor a counterpart of it, as .*WarmupScheduler have"),
    ("num_training_steps", "WarmupCosineSchedule", ", which is total_steps here"),
    ("num_stable_steps", "WSD", ", which is stay_steps here"),
    ("num_decay_steps", "WSD", ", which is decay_steps here"),
    ("num_cycles", "WSD", ", which is cycles here"),
    ("lr_end", "WarmupCosineSchedule", ", which is eta_min here"),
    # timm
    ("t_initial", "CosineAnnealingLR", ", which is T_max here"),
    ("lr_min", "CosineAnnealingLR", ", which is eta_min here"),
    ("warmup_t", "WarmupCosineSchedule", ", which is warmup_steps here"),
    ("decay_t", "StepLR", ", which is step_size here"),
    ("cycle_mul", "CosineAnnealingWarmRestarts", ", which is T_mult here"),
    # Another class of ours
    ("warmup_epochs", "WarmupCosineSchedule", ", which is warmup_steps here"),
    ("T_max", "WarmupCosineSchedule", ", which is total_steps here"),
    # Misspelt
    ("stepsize", "StepLR", ": step_size may be meant"),
    ("unheard_of", "StepLR", ""),
]


@pytest.mark.parametrize(("name", "cls", "hint"), NAMES)
def test_an_argument_of_another_library_is_told_its_counterpart(name, cls, hint):
    message = rf"^{cls} has no argument '{name}'{hint}.*; it has \w+, .*last_epoch"
    with pytest.raises(TypeError, match=message):
        getattr(bs, cls)(**{name: 1})
    with pytest.raises(ValueError, match=message):
        bs.from_config({"class": cls, name: 1})


def test_a_class_of_the_users_may_have_such_an_argument():
    class VerboseLR(bs.LRScheduler):
        def __init__(self, base_lr=0.1, verbose=False, last_epoch=0):
            self.verbose = verbose
            super().__init__(base_lr, last_epoch)

        def formula(self, epoch, base_lrs, xp):
            return base_lrs

    assert VerboseLR(verbose=True).verbose


@pytest.mark.parametrize("build", [bs.StepLR, bs.CosineAnnealingLR, bs.WarmupScheduler])
def test_a_number_of_epochs_in_the_place_of_the_rate_is_warned_of(build):
    message = (
        r"base_lr=30 is a learning rate\. .*give the rate before it.*if it is the rate, .* 30\.0"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        build(30)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="base_lr=2 is a learning rate"):
        build(2)
    build(30.0)
    build(1)
