"""The warning about a scheduler whose steps change no rate, since no optimizer follows it."""

import warnings
from typing import TYPE_CHECKING

from brainsched import _arguments, _upstream
from brainsched._param_groups import attachments, plain_name

if TYPE_CHECKING:
    from brainsched._base import LRScheduler


def warn_if_missed(scheduler: "LRScheduler") -> None:
    """Warn at the first step of a scheduler that an optimizer seems to be meant to follow."""
    scheduler.__dict__["_was_missed"] = True
    reason = (
        scheduler._lost or _followed_part(scheduler) or _added(scheduler) or _namesake(scheduler)
    )
    if reason is not None:
        warnings.warn(
            f"no optimizer follows this {type(scheduler).__name__}, so that its steps change no "
            f"rate: {reason}. Give it to the optimizer with scheduler.attach_optimizer(optimizer)",
            UserWarning,
            stacklevel=3,
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


def _added(scheduler: "LRScheduler") -> str | None:
    """Say which optimizer has the scheduler in a list that no rate is read from."""
    for optimizer in _upstream.optimizers_in_sight():
        if any(added is scheduler for added in optimizer.schedulers):
            return f"it was added to {plain_name(optimizer)}, which takes note of it and no more"
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
