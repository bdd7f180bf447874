"""Warnings about a scheduler that no optimizer follows, or that was not restored with its own."""

from typing import TYPE_CHECKING, Any

import braintools

from brainsched import _arguments, _check, _upstream
from brainsched._param_groups import attachments, plain_name

if TYPE_CHECKING:
    from brainsched._base import LRScheduler


def warn_if_missed(scheduler: "LRScheduler", epoch: Any) -> None:
    """Warn at the first step of a scheduler that an optimizer seems to be meant to follow.

    Or at the first step after the optimizer was restored without it, unless it goes to ``epoch``.
    """
    scheduler.__dict__["_was_missed"] = True
    attachment = scheduler._attachment
    if attachment is not None:
        if epoch is None and attachment.left_behind:
            _check.warn(
                f"{plain_name(attachment.optimizer)} was restored from a checkpoint, and its "
                f"{type(scheduler).__name__} was not, which goes on from epoch 0: load what "
                f"scheduler.state_dict() gave, too, or say with scheduler.step(epoch) where it is"
            )
        return
    reason = (
        scheduler._lost or _followed_part(scheduler) or _namesake(scheduler) or _beside(scheduler)
    )
    if reason is not None:
        _check.warn(
            f"no optimizer follows this {type(scheduler).__name__}, so that its steps change no "
            f"rate: {reason}. Give it to the optimizer with scheduler.attach_optimizer(optimizer)"
        )


def _followed_part(scheduler: "LRScheduler") -> str | None:
    for attachment in attachments():
        if any(part is scheduler for part in _arguments.parts(attachment.scheduler)):
            whole = type(attachment.scheduler).__name__
            return f"{plain_name(attachment.optimizer)} follows the {whole} that it is a part of"
    for part in _arguments.parts(scheduler):
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


def _beside(scheduler: "LRScheduler") -> str | None:
    """Say which optimizer, a variable of whoever steps the scheduler, runs at a rate of its own."""
    for optimizer in _upstream.optimizers_in_sight():
        name = plain_name(optimizer)
        if any(added is scheduler for added in optimizer.schedulers):
            return f"it was added to {name}, which takes note of it and no more"
        # What has no class of its own may have a transformation that asks the scheduler.
        if type(optimizer.lr) is braintools.optim.ConstantLR and name != "OptaxOptimizer":
            return f"{name} was built with a rate of its own, {optimizer.base_lr}, and keeps it"
    return None
