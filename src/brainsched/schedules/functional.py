"""Rates that follow a function of yours."""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from brainsched import checks
from brainsched.core.scheduler import LRScheduler
from brainsched.types import BaseLRs, Epochs, LRs, Rates

Multiplier = Callable[[Any], Any]


def evaluate(name: str, function: Multiplier, counts: Epochs) -> Epochs:
    """Return what a user's function of one number gives for each of ``counts``.

    JAX evaluates it on the host, too: its author writes for one number, and for compiled code.
    """

    def result(count: jax.Array) -> jax.Array:
        value = jnp.asarray(function(count))
        return jnp.asarray(checks.rate(f"the result of {name}", value), np.float64)

    return jax.vmap(result)(jnp.asarray(counts).ravel()).reshape(counts.shape)


class LambdaLR(LRScheduler):
    r"""A rate with a multiplier that is any function of the epoch.

    .. math::

        \eta_t = \eta_\text{base} \, \lambda(t)

    Parameters
    ----------
    base_lr, last_epoch : float, sequence or mapping of float; int
        The base rate of every param group, or one for each; the epoch to begin at.
    lr_lambda : callable, or sequence of callable
        From the epoch, a float64 scalar, to the multiplier: one function for all param groups,
        or one for each. JAX traces it, on the host too: ``jnp.where`` instead of ``if``, and
        ``epoch.astype(int)`` for an index. On the host a negative multiplier raises.

    Examples
    --------
    >>> import brainsched
    >>> import jax.numpy as jnp
    >>> scheduler = brainsched.LambdaLR(0.5, lr_lambda=lambda epoch: 1 / jnp.sqrt(1 + epoch))
    >>> scheduler.lr_at([0, 3, 15]).ravel().tolist()
    [0.5, 0.25, 0.125]

    References
    ----------
    The class of this name in PyTorch, ``torch.optim.lr_scheduler.LambdaLR``.
    """

    def __init__(
        self, base_lr: Rates, lr_lambda: Multiplier | Sequence[Multiplier], last_epoch: int = 0
    ) -> None:
        self.lr_lambda = lr_lambda
        if callable(lr_lambda):
            self._functions = {"lr_lambda": lr_lambda}
        else:
            entries = checks.sequence("lr_lambda", lr_lambda, "functions, or one function")
            self._functions = {f"lr_lambda[{group}]": entry for group, entry in enumerate(entries)}
            self.max_groups = len(entries)
        super().__init__(base_lr, last_epoch)

    def formula(self, epoch: Epochs, base_lrs: BaseLRs, xp: ModuleType) -> LRs:
        """Evaluate the functions; see :meth:`LRScheduler.formula`."""
        functions = self._functions.items()
        columns = [xp.asarray(evaluate(name, function, epoch)) for name, function in functions]
        return base_lrs * xp.concatenate(columns, axis=-1)[..., : len(base_lrs)]
