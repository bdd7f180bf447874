"""The link between a scheduler and the braintools optimizer whose param groups it drives.

The rule: a scheduler drives at most one optimizer, an optimizer follows exactly one scheduler of
ours from the first one on, and both know it by one object, their :class:`Attachment`. Attaching,
moving, replacing and going back are one operation, :func:`attach`, that makes such an object and
ends those that its two sides had.

- A scheduler that loses its optimizer is free: whole, where it stood, with its rates.
- An optimizer that loses its scheduler keeps its rates: it follows a constant schedule of them.

The rates have one home, ``current_lrs`` of the scheduler that is followed. All that an optimizer
reads or shows is read there, through the attachment. A compiled program has a scheduler's States
built in; so it also reads the State of the attachment, which changes its structure when the
attachment ends, upon which brainstate traces the program again.
"""

import dataclasses
import functools
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NoReturn

import jax
from brainstate import State, TraceContextError
from braintools.optim import OptaxOptimizer, OptimState

from brainsched import checks
from brainsched.core import arguments
from brainsched.link import tracing, upstream
from brainsched.link.group import ScheduledGroup
from brainsched.types import Array

if TYPE_CHECKING:
    from brainsched.core.evaluation import Bases
    from brainsched.core.scheduler import LRScheduler


class Unwritten:
    """Whether nobody has written to a State since this was made.

    Every write puts another object into a State, and a read leaves the object that is there.
    """

    def __init__(self, state: State) -> None:
        self._watched = state
        self._content = upstream.content_of(state)

    def __bool__(self) -> bool:
        return upstream.content_of(self._watched) is self._content


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _InForce:
    """The value of an attachment's State: no array, but a structure, which programs depend on."""

    holds: bool


class Attachment:
    """The link between one scheduler and one optimizer, while it lasts.

    Parameters
    ----------
    scheduler : LRScheduler
        The one that drives.
    optimizer : OptaxOptimizer
        The one that follows.
    held : list of scalar arrays
        The applied rates that the scheduler brings along. It may have had more param groups
        elsewhere: their rates wait for the group to be added, up to the next step.

    Attributes
    ----------
    built_with : LRScheduler or None
        The scheduler that the optimizer was built with, which its transformation may hold.
    rate_was_read : bool
        Whether a step of the optimizer has asked for the rate.
    restored : Unwritten or None
        Whether the applied rates are still those that a checkpoint of the scheduler restored.
    left_behind : Unwritten or None
        Whether the scheduler still is at the epoch 0 at which the optimizer was restored alone.
    """

    def __init__(
        self, scheduler: "LRScheduler", optimizer: OptaxOptimizer, held: list[Array]
    ) -> None:
        self.scheduler = scheduler
        self.optimizer = optimizer
        self.built_with: LRScheduler | None = None
        self.rate_was_read = False
        self.restored: Unwritten | None = None
        self.left_behind: Unwritten | None = None
        self._began_outside = False  # whether a step that is being taken began outside any trace
        self._held = held
        self._position = Unwritten(scheduler.last_epoch)
        self._in_force = OptimState(_InForce(True))
        self._names = _names_of(scheduler)
        _attachments.add(self)

    @property
    def trains_without_steps(self) -> bool:
        """Whether the optimizer has taken steps, and its scheduler none."""
        return self.rate_was_read and bool(self._position)

    @property
    def held(self) -> list[Array]:
        """The applied rates, and those that wait for their group: none once it has stepped."""
        applied = list(self.scheduler.current_lrs.value)
        return [*applied, *(self._held[len(applied) :] if self._position else [])]

    def end(self) -> None:
        """Let all programs that rely on it be traced again."""
        self._in_force.value = _InForce(False)
        _attachments.discard(self)

    def replaced_name(self, scheduler: "LRScheduler") -> str | None:
        """Return a name in ``__main__`` that meant the scheduler here, and now means another."""
        namespace = vars(sys.modules["__main__"])
        return next((name for name in self._names if namespace.get(name) is scheduler), None)

    def note_if_left_behind(self, steps: Any) -> None:
        """Take note that a checkpoint brought the optimizer alone forward by so many steps."""
        if steps > 0 and self.scheduler.epoch == 0:
            self.left_behind = Unwritten(self.scheduler.last_epoch)
            self.scheduler.__dict__["_was_missed"] = False

    @contextmanager
    def stepping(self) -> Iterator[None]:
        """Mark that the optimizer takes a step: what reads the rate meanwhile is its doing."""
        if upstream.inside_brainstate_transform():
            _ = self._in_force.value  # so that the program that is traced depends on it
        for group, rate in enumerate(self.scheduler.current_lrs.value):
            if rate.ndim:
                raise ValueError(
                    f"current_lrs[{group}] must be a scalar, got an array of shape {rate.shape}"
                )
        self._began_outside = not upstream.inside_a_trace()
        token = _stepping.set(self)
        try:
            yield
        finally:
            _stepping.reset(token)
            self._began_outside = False

    def read(self) -> Array:
        """Return the rate of the first param group, for the optimizer's transformation."""
        if self._began_outside and upstream.inside_a_trace():
            raise TraceContextError(
                f"the transformation of {plain_name(self.optimizer)} asks for the rate within a "
                f"function that it lets JAX trace by itself, as lax.cond of optax.MultiSteps and "
                f"optax.apply_if_finite does, or jax.jit: compile the whole step instead, "
                f"train_step = brainstate.transform.jit(train_step)"
            )
        tracing.require(self.scheduler.last_epoch, "the optimizer's step")
        return self.scheduler.current_lrs.value[0]

    def read_for_replaced(self) -> list[Array]:
        """Return the rates to a transformation that was built with a scheduler of braintools."""
        return [self.read(), *self.scheduler.current_lrs.value[1:]]


# Those in force, and the one whose optimizer is taking a step.
_attachments: "weakref.WeakSet[Attachment]" = weakref.WeakSet()
_stepping: ContextVar[Attachment | None] = ContextVar("_stepping", default=None)


def attachments() -> list[Attachment]:
    """Return those that are in force."""
    return list(_attachments)


def attachment_of(optimizer: OptaxOptimizer) -> Attachment | None:
    """Return the attachment of an optimizer that follows a scheduler of ours."""
    attachment = getattr(upstream.scheduler_of(optimizer), "_attachment", None)
    return attachment if attachment is not None and attachment.optimizer is optimizer else None


def applied_rate(scheduler: "LRScheduler") -> Array:
    """Return the first group's rate to whoever calls ``scheduler`` for it.

    A transformation may hold the scheduler that it was built with, which may be replaced since.
    """
    attachment = _stepping.get()
    if attachment is not None and scheduler in (attachment.scheduler, attachment.built_with):
        return attachment.read()
    if attachment is None and upstream.plain_optimizer_in("step") is not None:
        raise RuntimeError(
            f"the transformation of an optimizer asks a {type(scheduler).__name__} for the rate "
            f"which the optimizer does not follow, and so reports another: give it to both, "
            f"braintools.optim.OptaxOptimizer(tx=tx, lr=scheduler), or write "
            f"scheduler.attach_optimizer(optimizer)"
        )
    tracing.require(scheduler.last_epoch, "the optimizer's step")
    return scheduler.current_lrs.value[0]


def note_that_rates_were_read(scheduler: "LRScheduler") -> None:
    """Take note of it if the optimizer of ``scheduler`` is taking a step."""
    attachment = _stepping.get()
    if attachment is not None and attachment.scheduler is scheduler:
        attachment.rate_was_read = True


# Attaching


def attach(scheduler: "LRScheduler", optimizer: OptaxOptimizer) -> None:
    """Let ``optimizer`` follow ``scheduler``: see :meth:`LRScheduler.attach_optimizer`."""
    if not isinstance(optimizer, OptaxOptimizer):
        is_class = isinstance(optimizer, type)
        raise TypeError(
            f"optimizer must be an OptaxOptimizer of braintools.optim, as "
            f"braintools.optim.Adam(lr=0.1) is, got {'the class ' if is_class else ''}"
            f"{(optimizer if is_class else type(optimizer)).__name__}. Optimizers of optax and "
            f"Flax take scheduler.as_optax() in the place of a rate"
        )
    former = scheduler._attachment
    if former is not None and former.optimizer is optimizer:
        return
    tracing.require_one_trace(scheduler.last_epoch, optimizer.step_count)
    groups = max(1, len(optimizer.param_groups))
    bases = scheduler._bases
    for group in range(groups):
        bases = bases_with(scheduler, group, _given_rate(optimizer, group), bases)
    by_their_keys = [upstream.by_their_keys(optimizer, group) for group in range(1, groups)]
    held = list(scheduler.current_lrs.value) if former is None else former.held
    having = scheduler._with_groups(groups, bases, held)

    if former is not None and not upstream.is_under_construction(former.optimizer):
        checks.warn(
            f"{type(scheduler).__name__} moves to another optimizer, with its epoch and rates. "
            f"The former one, {plain_name(former.optimizer)}, keeps the rates that it has"
        )
        _follow(former.optimizer, *_constant(former.optimizer))
    _warn_of_default_rate(scheduler, optimizer)
    for file in by_their_keys:
        file()
    _follow(optimizer, scheduler, having, held)


def _follow(
    optimizer: OptaxOptimizer, scheduler: "LRScheduler", having: Any, held: list[Array]
) -> None:
    """Make the attachment. All is checked: from here on nothing raises."""
    new = Attachment(scheduler, optimizer, held)
    old = attachment_of(optimizer)
    replaced = upstream.scheduler_of(optimizer)
    if old is not None:
        new.built_with = old.built_with
        old.end()
        old.scheduler.__dict__.update(
            _attachment=None,
            _was_missed=False,
            _lost=f"{plain_name(optimizer)} follows a {type(scheduler).__name__} now",
        )
    elif upstream.is_under_construction(optimizer):
        new.built_with = scheduler
    else:
        replaced.optimizer = None
        name = type(replaced).__name__
        upstream.ShownState.take_over(
            upstream.rates_state(replaced),
            optimizer,
            functools.partial(_rates_for_replaced, name),
            functools.partial(_refuse_for_replaced, name),
        )
    if scheduler._attachment is not None:
        scheduler._attachment.end()
    scheduler.__dict__.update(_attachment=new, _was_missed=True, _lost=None)
    scheduler._have_groups(*having)
    upstream.set_scheduler(optimizer, scheduler)
    for group in range(max(1, len(optimizer.param_groups))):
        own_rate(optimizer, group)


def own_rate(optimizer: OptaxOptimizer, group: int) -> None:
    """Make the State that the transformation of ``group`` reads show the scheduler's rate."""
    given = _given_rate(optimizer, group)
    state = upstream.applied_rate(optimizer, group)
    upstream.AliasState.take_over(state, optimizer, group)
    if group < len(optimizer.param_groups):
        content = {**optimizer.param_groups[group], "lr": state}
        optimizer.param_groups[group] = ScheduledGroup(content, given)


def _constant(optimizer: OptaxOptimizer) -> tuple["LRScheduler", Any, list[Array]]:
    """Return a schedule that keeps the rates that ``optimizer`` has, for :func:`_follow`."""
    from brainsched.schedules import ConstantLR

    rates = list(upstream.scheduler_of(optimizer).current_lrs.value)
    scheduler = ConstantLR(rates, factor=1.0, total_iters=0)
    return scheduler, scheduler._with_groups(len(rates), scheduler._bases, rates), rates


def _warn_of_default_rate(scheduler: "LRScheduler", optimizer: OptaxOptimizer) -> None:
    """Warn if the default base rate takes the place of the one that ``optimizer`` was built with.

    In PyTorch the optimizer's own rate is the base rate.
    """
    if upstream.is_under_construction(optimizer) or attachment_of(optimizer) is not None:
        return
    default, present = scheduler.base_lrs[0], optimizer.base_lr
    name = arguments.base_lr_left_out(scheduler)
    if name is not None and not isinstance(present, jax.Array) and present != default:
        checks.warn(
            f"{type(scheduler).__name__} was not given a base rate, and has its default of "
            f"{default}, which takes the place of the rate of {plain_name(optimizer)}: give it "
            f"{name}={present}"
        )


def bases_with(scheduler: "LRScheduler", group: int, lr: Any, bases: "Bases") -> "Bases":
    """Return ``bases`` with that of a param group, if it may join; change nothing."""
    if scheduler.max_groups is not None and group >= scheduler.max_groups:
        raise ValueError(
            f"param group {group} has no rate: the schedule has columns for "
            f"{scheduler.max_groups} groups"
        )
    try:
        return bases.adding(group, lr)
    except TypeError as error:
        raise TypeError(
            f"{error}: lr is the base rate of the group, which follows the scheduler of the "
            f"optimizer with all others. PiecewiseConstantSchedule has a course for each, a column "
            f"of values"
        ) from error


def _given_rate(optimizer: OptaxOptimizer, group: int) -> Any:
    """Return the ``lr=`` that a group was added with, or None."""
    if group == 0:  # which is registered
        return None
    entry = optimizer.param_groups[group]
    if isinstance(entry, ScheduledGroup):
        return entry.given_lr
    return None if isinstance(entry["lr"], State) else entry["lr"]


def _rates_for_replaced(name: str, optimizer: OptaxOptimizer) -> list[Array]:
    attachment = attachment_of(optimizer)
    if attachment is None or _stepping.get() is not attachment:
        _refuse_for_replaced(name, optimizer)
    return attachment.read_for_replaced()


def _refuse_for_replaced(name: str, optimizer: OptaxOptimizer) -> NoReturn:
    raise RuntimeError(
        f"this {name} of braintools drives no optimizer any more: {plain_name(optimizer)} follows "
        f"a scheduler of brainsched, optimizer.lr. Step and read that one; another optimizer that "
        f"shares this {name} needs a scheduler of its own"
    )


def plain_name(optimizer: OptaxOptimizer) -> str:
    """Return the name of the optimizer's own class."""
    return getattr(optimizer, "_plain_class", type(optimizer)).__name__


def _names_of(scheduler: "LRScheduler") -> list[str]:
    """Return the names that a notebook, or a script, has for ``scheduler``."""
    return [name for name, value in vars(sys.modules["__main__"]).items() if value is scheduler]
