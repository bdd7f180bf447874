"""A division that compiled code and NumPy round alike."""

from types import ModuleType

import jax
import numpy as np

from brainsched._types import Epochs


def quotient(epoch: Epochs, divisor: int, xp: ModuleType) -> Epochs:
    """Return ``epoch / divisor``, rounded once, in compiled code too.

    XLA turns a division by a constant into a product with its reciprocal, which is off in the last
    place: ``49 * (1 / 49)`` is below 1, and a stage would begin an update late. So in compiled
    code the divisor is selected by the epoch, and a barrier keeps an epoch that is itself a
    constant from deciding that too early. Either alone was seen to fail (jax 0.10.2, on a CPU).
    """
    if xp is np:
        return epoch / divisor
    is_epoch = jax.lax.optimization_barrier(epoch) >= 0
    return epoch / xp.where(is_epoch, float(divisor), 1.0)
