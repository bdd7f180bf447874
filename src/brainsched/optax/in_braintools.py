"""What an optimizer of braintools reports whose transformation has a rate of ours in it.

braintools 0.3.0 reports the rate that the optimizer was built with, by default 0.001, of which the
transformation knows nothing. The rates that are applied stand in the transformation's state.
"""

from collections.abc import Callable
from typing import Any

from braintools.optim import ConstantLR, OptaxOptimizer

from brainsched import checks
from brainsched.link import upstream
from brainsched.link.attachment import attachment_of


def report_applied_rate(read: Callable[[Any], Any]) -> None:
    """Let the optimizer that registers weights now, if any, report what ``read`` returns.

    Parameters
    ----------
    read : callable
        From the state of the transformation to the applied rate of the first group.
    """
    optimizer = upstream.plain_optimizer_in("register_trainable_weights")
    if optimizer is None or attachment_of(optimizer) is not None:
        return  # with a scheduler of ours, a warning says that its rate is not read

    def rate(optimizer: OptaxOptimizer) -> Any:
        return read(optimizer.opt_state.value)

    upstream.ShownState.take_over(upstream.applied_rate(optimizer, 0), optimizer, rate, _refuse)
    if type(upstream.scheduler_of(optimizer)) is ConstantLR:
        upstream.give_a_scheduler_of_its_own(optimizer)
        rates = upstream.rates_state(upstream.scheduler_of(optimizer))
        upstream.ShownState.take_over(rates, optimizer, lambda of: [rate(of)], _refuse)


def warned_that_another_rate_is_reported(name: str) -> bool:
    """Warn if a step of an optimizer asks for the rate of a ``name`` now; say whether it did.

    That rate has no state, and so the optimizer cannot report it.
    """
    if not upstream.called_for_the_learning_rate():
        return False
    optimizer = upstream.plain_optimizer_in("step")
    if optimizer is None or attachment_of(optimizer) is not None:
        return False  # with a scheduler of ours, a warning says that its rate is not read
    checks.warn(
        f"{type(optimizer).__name__} trains at the rate of {name}.as_optax(), which is in its "
        f"transformation, and reports another as current_lr, {optimizer.base_lr}: chain "
        f"scale_by_scheduler in the place of a rate, which is reported"
    )
    return True


def _refuse(optimizer: OptaxOptimizer) -> None:
    # A checkpoint restores the rates with the state of the transformation.
    if upstream.plain_optimizer_in("load_state_dict") is not optimizer:
        raise RuntimeError(
            "the rates of this optimizer are those of scale_by_scheduler in its transformation, "
            "and cannot be set here: write a number into 'learning_rate_scale' in "
            "optimizer.opt_state.value, by which they are multiplied"
        )
