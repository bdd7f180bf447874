"""A schedule: a pure function of the epoch, and what follows from it without a position."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from brainstate import State
from jaxtyping import Float

from brainsched import checks
from brainsched.core import config as configuring
from brainsched.core.copies import register
from brainsched.core.evaluation import Evaluation
from brainsched.link.states import inside_a_trace
from brainsched.types import Array, BaseLRs, Epochs, LRs, Rate, epoch_dtype

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The classes whose formulas compiled code is known to run.
compilable: set[type] = set()


class Schedule(ABC):
    """The part of a scheduler that does not depend on its present epoch.

    :class:`brainsched.LRScheduler` adds the present epoch.
    """

    max_groups: int | None = None
    _boundaries: Sequence[float] = ()

    __signature__: inspect.Signature
    _evaluation: Evaluation
    _current_lrs: State
    _first_epoch: int
    # The schedule that this one follows up to some epoch, so that its checkpoints load here.
    _trunk: "Schedule | None" = None
    # Whether it is stepped once an update, and its parts are in epochs.
    _parts_are_in_epochs = False

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        signature = inspect.signature(cls.__init__)
        # The metaclass hides the signature. Without types: help() spells an alias out.
        own = [p.replace(annotation=p.empty) for p in signature.parameters.values()][1:]
        cls.__signature__ = signature.replace(parameters=own, return_annotation=signature.empty)
        if cls.formula is not Schedule.formula:
            configuring.register(cls)
        if configuring.is_ours(cls):  # whose tests compile them
            compilable.add(cls)
        register(cls)

    @abstractmethod
    def formula(self, epoch: Epochs, base_lrs: BaseLRs, xp: ModuleType) -> LRs:
        """Return the rates of every param group: the one method that a schedule defines.

        Parameters
        ----------
        epoch : float64 array of shape ``(*epoch, 1)``
            The epochs, at least 0 and not always whole: a schedule in epochs may be stepped once an
            update.
        base_lrs : float64 array of shape ``(groups,)``
            The base rate of each group; in a composition, a tuple of each part's.
        xp : module
            ``numpy``, or ``jax.numpy`` with 64-bit types enabled: the module to compute with.

        Returns
        -------
        float64 array of shape ``(*epoch, groups)``, or one that broadcasts to it
            Not rounded; the base class rounds. On the host, a rate that is negative or not finite
            raises when its epoch comes. Compiled code cannot raise: a rate below 0 is 0 there, and
            NaN is applied and reported as NaN.
        """
        raise NotImplementedError

    def lr_at(self, epoch: Any) -> Float[Array, "*epoch groups"]:
        """Return the scheduled rates at one or more epochs.

        Parameters
        ----------
        epoch : int or float, or sequence or array of them
            Epochs, which may lie between whole ones; a traced or device array is not checked, and
            below 0 counts as 0.

        Returns
        -------
        array of shape ``(*epoch.shape, n_groups)``
            In the rate's dtype: a NumPy array for an epoch on the host.

        Raises
        ------
        TypeError, ValueError
            If an epoch is not a real number, is negative or too large; on the host, if a rate is
            negative or not finite, as those of your own formula may be.

        Notes
        -----
        The host and compiled code give the same bits for the same epoch. Unless
        ``jax_enable_x64`` is set, JAX rounds a real epoch passed to ``jax.jit(scheduler.lr_at)`` to
        float32, which may be another epoch: 1 - 1e-9 becomes 1. Whole epochs are not affected.
        """
        self._require_pure("lr_at()")
        if inside_a_trace():  # so that the program is traced again with other groups
            State.value.fget(self._current_lrs)
        if isinstance(epoch, list | tuple | range):
            epoch = np.asarray(epoch) if len(epoch) else np.zeros(0, epoch_dtype())
        return self._evaluation.rates(checks.real_epoch("epoch", epoch))

    def as_optax(
        self,
        group: int | str | None = None,
        steps_per_epoch: float = 1,
        *,
        staircase: bool = False,
        last_epoch: float | None = None,
    ) -> Callable[[Any], Array]:
        """Return the rate of one param group as an ``optax.Schedule``, for optax and Flax.

        The position is the count that optax keeps; the scheduler's present epoch is ignored, and
        later changes of the scheduler do not affect the schedule.

        Parameters
        ----------
        group : int or str, optional
            An entry of ``base_lr``, by number or name, or a column of a schedule with a column
            for each group. Default: 0.
        steps_per_epoch : float
            The number of updates in an epoch, whole or not, if the schedule is in epochs. Leave it
            out if the schedule is in updates.
        staircase : bool
            Whether the rate is constant within each epoch.
        last_epoch : float, optional
            The epoch of count 0, whole or not. Default: the ``last_epoch`` that the scheduler was
            built with.

        Returns
        -------
        callable
            From a count, a real number, traced or not, to the scheduled rate at epoch
            ``last_epoch + count / steps_per_epoch``, positive and in the rate's dtype. A count
            below 0 counts as 0. It can be pickled.

        Raises
        ------
        TypeError, ValueError
            If there is no such group, or another argument is not as described.

        Warns
        -----
        UserWarning
            If ``group`` is left out, and the rates of the groups differ.

        See Also
        --------
        scale_by_scheduler : a rate for each group of parameters.
        PerUpdate : a schedule in epochs, stepped once an update, under brainstate.
        """
        # An import up the stairs: the bridges build on core, which does not need them otherwise.
        from brainsched.optax.schedule import OptaxSchedule

        scheduler: Any = self
        return OptaxSchedule(scheduler, group, steps_per_epoch, staircase, last_epoch)

    def __call__(self, count: Any) -> NoReturn:
        """Raise: a scheduler is not a function of a count."""
        raise TypeError(
            f"this {type(self).__name__} is not an optax schedule: pass scheduler.as_optax() to "
            f"optax, or lr=scheduler to an optimizer of braintools"
        )

    @property
    def base_lrs(self) -> list[Rate]:
        """The base rate of each param group, including entries of ``base_lr`` that still wait."""
        return list(self._evaluation.base_lrs)

    @property
    def config(self) -> dict[str, Any]:
        """The class and the arguments that rebuild this scheduler, in JSON types.

        See Also
        --------
        from_config : the inverse.
        """
        return configuring.config(self)

    def plot(self, epochs: int, ax: "Axes | None" = None) -> "Axes":
        """Draw the scheduled rates of the first epochs, with Matplotlib.

        Parameters
        ----------
        epochs : int
            How many epochs, at least 1.
        ax : matplotlib.axes.Axes, optional
            Where to draw. Default: a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            With a line for each param group and a mark at each of ``stage_boundaries``,
            logarithmic where the rates span two decades or more.

        Raises
        ------
        TypeError, ValueError
            If ``epochs`` is not a positive integer.
        """
        from brainsched.core import plot

        return plot.plot(self, epochs, ax)

    @property
    def stage_boundaries(self) -> Sequence[float]:
        """The epochs at which a new stage begins, if the schedule has stages."""
        return self._boundaries

    def _require_pure(self, what: str, cure: str = "") -> None:  # noqa: B027  (all but one are pure)
        """Raise a TypeError if the rate depends on more than the epoch, which forbids ``what``."""
