"""Warnings about a scheduler that no optimizer follows, or that was not restored with its own."""

import gc
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import braintools

from brainsched import checks
from brainsched.core import arguments
from brainsched.core import config as configuring
from brainsched.link import upstream
from brainsched.link.attachment import Attachment, attachments, plain_name

if TYPE_CHECKING:
    from brainsched.core.scheduler import LRScheduler


def warn_if_missed(scheduler: "LRScheduler", epoch: Any) -> None:
    """Warn at the first step of a scheduler that an optimizer seems to be meant to follow.

    Or at the first step after the optimizer was restored without it, unless it goes to ``epoch``.
    """
    scheduler.__dict__["_was_missed"] = True
    attachment = scheduler._attachment
    if attachment is not None:
        if epoch is None and attachment.left_behind:
            checks.warn(
                f"{plain_name(attachment.optimizer)} was restored from a checkpoint, and its "
                f"{type(scheduler).__name__} was not, which goes on from epoch 0: load what "
                f"scheduler.state_dict() gave, too, or say with scheduler.step(epoch) where it is"
            )
        return
    name = type(scheduler).__name__
    if scheduler._is_in_optax:
        if epoch is not None:  # to look at one epoch; a training loop counts
            scheduler.__dict__["_was_missed"] = False
            return
        checks.warn(
            f"the steps of this {name} change no rate: optax, which was given its schedule, counts "
            f"updates by itself, and trains at another rate than this {name} reports. Leave them "
            f"out, and log brainsched.rates_by_name(opt_state, scheduler) of scale_by_scheduler"
        )
        return
    reason = (
        scheduler._lost
        or _followed_part(scheduler)
        or _namesake(scheduler)
        or _double(scheduler)
        or _beside(scheduler)
    )
    if reason is not None:
        checks.warn(
            f"no optimizer follows this {name}, so that its steps change no rate: {reason}. Give "
            f"it to the optimizer with scheduler.attach_optimizer(optimizer)"
        )


def _followed_part(scheduler: "LRScheduler") -> str | None:
    for attachment in attachments():
        if any(part is scheduler for part in arguments.parts(attachment.scheduler)):
            whole = type(attachment.scheduler).__name__
            return f"{plain_name(attachment.optimizer)} follows the {whole} that it is a part of"
    for part in arguments.parts(scheduler):
        if part._attachment is not None:
            optimizer = plain_name(part._attachment.optimizer)
            return f"{optimizer} follows a part of it, a {type(part).__name__}"
    return None


def _namesake(scheduler: "LRScheduler") -> str | None:
    """Say which optimizer follows the scheduler that had this one's name: a cell was run again."""
    for attachment in attachments():
        name = attachment.replaced_name(scheduler)
        if name is not None:
            return (
                f"{plain_name(attachment.optimizer)} follows the "
                f"{type(attachment.scheduler).__name__} that was called {name!r} before"
            )
    return None


def _double(scheduler: "LRScheduler") -> str | None:
    """Say which optimizer trains under the same plan, and stands still: this one is a copy."""
    if any(True for _ in _doubles(scheduler)):
        gc.collect()  # it may be of an earlier run, which is over
    for attachment in _doubles(scheduler):
        return (
            f"{plain_name(attachment.optimizer)} follows another one of the same arguments, which "
            f"was never stepped, and of which this is a copy, or was built as it was"
        )
    return None


def _doubles(scheduler: "LRScheduler") -> Iterator[Attachment]:
    for attachment in attachments():
        other = attachment.scheduler
        if attachment.trains_without_steps and _plan_of(other) == _plan_of(scheduler):
            yield attachment


def _plan_of(scheduler: "LRScheduler") -> Any:
    try:
        return {**configuring.config(scheduler), "last_epoch": None}
    except TypeError:  # an argument has no form in a config
        return scheduler


def _beside(scheduler: "LRScheduler") -> str | None:
    """Say which optimizer, a variable of whoever steps the scheduler, runs at a rate of its own."""
    for optimizer in upstream.optimizers_in_sight():
        name = plain_name(optimizer)
        if any(added is scheduler for added in optimizer.schedulers):
            return f"it was added to {name}, which takes note of it and no more"
        if type(optimizer.lr) is not braintools.optim.ConstantLR:
            continue
        if name != "OptaxOptimizer":
            return f"{name} was built with a rate of its own, {optimizer.base_lr}, and keeps it"
        # What has no class of its own may have a transformation that asks the scheduler.
        if upstream.asks_none(optimizer, [scheduler.last_epoch, scheduler.current_lrs]):
            return f"the transformation of {name} does not ask it for the rate, and keeps its own"
    return None
