"""What to say to a call that is another library's: its optimizer, and its names of arguments."""

import difflib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import optax

from brainsched.core import config as configuring
from brainsched.core.arguments import parameters

if TYPE_CHECKING:
    from brainsched.core.scheduler import LRScheduler

# Names of one thing: ours, and those of PyTorch, optax, Keras, transformers and timm. A name that
# means several things, such as init_value and decay_steps, is in several rows.
_SYNONYMS: tuple[tuple[str, str], ...] = (
    ("warmup_start_lr", "init_value warmup_lr_init warmup_init_lr start_lr"),
    (
        "max_lr base_lr",
        "lr learning_rate peak_value peak_lr warmup_target init_value "
        "initial_learning_rate initial_lr init_lr",
    ),
    (
        "eta_min end_lr end_value min_lr end_factor",
        "end_learning_rate lr_end lr_min final_lr alpha",
    ),
    ("warmup_steps warmup_epochs", "num_warmup_steps warmup_t warmup_iters warmup"),
    ("stay_steps", "num_stable_steps"),
    ("decay_steps", "num_decay_steps transition_steps"),
    (
        "total_steps T_max T_0 total_iters length",
        "num_training_steps decay_steps first_decay_steps "
        "transition_steps t_initial num_steps max_iters total_epochs",
    ),
    ("step_size", "decay_steps transition_steps decay_t"),
    ("boundaries milestones", "boundaries_and_scales decay_t"),
    ("values", "boundaries_and_scales rates"),
    ("gamma decay_rate factor", "decay_factor"),
    ("decay", "m_mul cycle_decay"),
    ("T_mult", "t_mul cycle_mul"),
    ("cycles", "num_cycles cycle_limit"),
    ("decay_strategy anneal_strategy strategy", "decay_type decay_fn"),
    ("transition_begin", "start_epoch"),
    ("steps_per_epoch", "steps updates_per_epoch"),
    ("lr_lambda", "function fn"),
    ("schedulers scheduler", "schedules"),
)

# What has no counterpart among the arguments.
_WITHOUT = {
    "optimizer": "the optimizer takes the scheduler, by lr=scheduler or "
    "scheduler.attach_optimizer(optimizer)",
    "verbose": "print(scheduler) shows the epoch and the rates",
    "cycle_momentum": "the momentum follows a ValueSchedule",
    "base_momentum": "the momentum follows a ValueSchedule",
    "max_momentum": "the momentum follows a ValueSchedule",
    "three_phase": "three straight ways are a PiecewiseLinearSchedule",
}


def check(cls: "type[LRScheduler]", args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Raise a TypeError that names the cure if ``cls(*args, **kwargs)`` is another library's call.

    Python's own would say that there are multiple values for an argument, or an unexpected one.
    """
    for value in [*args, *kwargs.values()]:
        if _is_optimizer(value):
            order = ", ".join(parameters(cls))
            name = getattr(value, "_plain_class", type(value)).__name__
            how = (
                f"{name}(lr=scheduler) or scheduler.attach_optimizer(optimizer)"
                if hasattr(value, "param_groups")
                else "scheduler.as_optax() in the place of optax's rate"
            )
            raise TypeError(
                f"{cls.__name__} takes no optimizer, but is given to one: write scheduler = "
                f"{cls.__name__}({order}), and then {how}"
            )
    accepted = parameters(cls) if kwargs else ()
    for name in kwargs:
        if name not in accepted:
            raise TypeError(unknown(cls, name))


def unknown(cls: "type[LRScheduler]", name: str) -> str:
    """Return what to say of an argument that ``cls`` does not have."""
    accepted = parameters(cls)
    return (
        f"{cls.__name__} has no argument {name!r}{_hint(accepted, name)}; it has "
        f"{', '.join(accepted)}"
    )


def hint_of_function(value: Any) -> str:
    """Return what to say of a function, such as a schedule of optax, in a scheduler's place."""
    if not inspect.isfunction(value):
        return ""
    return ": a schedule of optax becomes one as LambdaLR(base_lr, schedule), a factor of base_lr"


def _hint(accepted: Sequence[str], name: str) -> str:
    if name in _WITHOUT:
        return f": here {_WITHOUT[name]}"
    rows = [ours.split() for ours, theirs in _SYNONYMS if name in f"{ours} {theirs}".split()]
    counterparts = [ours for row in rows for ours in row]
    found = [ours for ours in counterparts if ours in accepted]
    if found:
        return f", which is {' or '.join(found)} here"
    others = sorted(_classes_with(counterparts))
    if others:
        return f", nor a counterpart of it, as {', '.join(others)} have"
    close = difflib.get_close_matches(name, accepted, n=1, cutoff=0.75)
    return f": {close[0]} may be meant" if close else ""


def _classes_with(names: Sequence[str]) -> Iterator[str]:
    """Yield the names of our classes that have an argument of one of these names."""
    for name, cls in configuring.classes().items():
        if configuring.is_ours(cls) and set(names) & set(parameters(cls)):
            yield name


def _is_optimizer(value: Any) -> bool:
    """Whether it is an optimizer, of braintools, PyTorch, optax or Flax."""
    is_optax = isinstance(value, optax.GradientTransformation)
    return is_optax or hasattr(value, "param_groups") or hasattr(value, "opt_state")
