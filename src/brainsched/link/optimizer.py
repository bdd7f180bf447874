"""What an optimizer of braintools does besides, once it follows a scheduler of ours."""

import functools
import types
from collections.abc import Mapping
from typing import Any, NoReturn

import jax
import numpy as np
from brainstate import State
from braintools.optim import OptaxOptimizer

from brainsched import checks
from brainsched.link import tracing, upstream
from brainsched.link.attachment import (
    Attachment,
    Unwritten,
    attachment_of,
    bases_with,
    own_rate,
    plain_name,
)
from brainsched.link.group import check_gradients, check_params


class ScheduledOptimizer(OptaxOptimizer):
    """What an optimizer does besides, once it follows a scheduler of ours.

    It is mixed into the optimizer's own class, which is otherwise what it was: an instance of the
    mixed class is one of the plain class, and calling the mixed class builds a plain optimizer.
    """

    _plain_class: type[OptaxOptimizer]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Build a plain optimizer."""
        return object.__new__(cls._plain_class)

    @property
    def _attachment(self) -> Attachment:
        attachment = attachment_of(self)
        if attachment is None:
            self._refuse_to_be_copied()
        return attachment

    def default_tx(self) -> Any:
        """Make the transformation, which asks this optimizer for the rate of the moment."""
        scheduler = upstream.scheduler_of(self)
        upstream.set_scheduler(self, lambda count: -self._attachment.read())
        try:
            return super().default_tx()
        finally:
            upstream.set_scheduler(self, scheduler)

    def register_trainable_weights(self, param_states: Any) -> Any:
        """Register weights, before groups are added."""
        if len(self.param_groups) > 1:
            found = jax.tree.leaves(param_states, is_leaf=lambda leaf: isinstance(leaf, State))
            if {id(state) for state in found} <= upstream.registered_ids(self):
                return self  # braintools' Trainer registers all of a model's once more
            raise ValueError(
                "register_trainable_weights comes before add_param_group: the weights would belong "
                "to no param group"
            )
        super().register_trainable_weights(param_states)
        upstream.refresh_first_group(self)
        own_rate(self, 0)
        return self

    def add_param_group(self, params: Any, **kwargs: Any) -> None:
        """Add a group, which runs at its scheduled rate from its first step, or leave all as is."""
        scheduler = self._attachment.scheduler
        group = len(self.param_groups)
        tracing.require_one_trace(scheduler.last_epoch, self.step_count)
        check_params(self, params)
        given = kwargs.pop("lr", None)
        for key, value in kwargs.items():
            if key != "weight_decay" and not isinstance(value, str):
                raise TypeError(
                    f"add_param_group takes lr and weight_decay, and text such as a name, got "
                    f"{key}={value}: braintools would not read it, and runs Adam on every added "
                    f"group. brainsched.scale_by_scheduler gives groups rates under any algorithm"
                )
        names = scheduler.group_names
        if group < len(names) and kwargs.get("name", names[group]) != names[group]:
            raise ValueError(
                f"base_lr has the name {names[group]!r} for param group {group}, got "
                f"name={kwargs['name']!r}: add the groups in the order of base_lr"
            )
        bases = bases_with(scheduler, group, given, scheduler._bases)
        having = scheduler._with_groups(group + 1, bases, self._attachment.held)

        undo = upstream.param_groups_as_they_are(self)
        try:
            # Without ``lr=``, or braintools 0.3.0 hides the State that it applies.
            super().add_param_group(params, **kwargs)
            upstream.by_their_keys(self, group)()
        except BaseException:
            undo()
            raise
        scheduler._have_groups(*having)
        own_rate(self, group)
        self.param_groups[group].given_lr = given
        if group == 1 and not upstream.trains_as_added_groups_do(self, self._plain_class):
            checks.warn(
                f"braintools 0.3.0 trains every group that is added by Adam, with Adam's defaults: "
                f"this {plain_name(self)} trains its first group alone. To train all by one "
                f"algorithm, register all parameters at once in braintools.optim.OptaxOptimizer("
                f"tx=...), with brainsched.scale_by_scheduler for the rates of groups"
            )

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Take a step, and warn once if the rate was not asked for."""
        attachment = self._attachment
        takes_gradients = self._plain_class.step is OptaxOptimizer.step
        if takes_gradients and self.opt_state is not None:  # else braintools says what to do first
            check_gradients(self, *args, **kwargs)
        before = None if self.opt_state is None else self.opt_state.value
        with attachment.stepping():
            result = super().step(*args, **kwargs)
        # With several groups, braintools leaves the first one out where it has no gradient.
        if not attachment.rate_was_read and (
            len(self.param_groups) == 1 or self.opt_state.value is not before
        ):
            attachment.rate_was_read = True
            checks.warn(
                f"{plain_name(self)} does not read its learning rate from the scheduler: its "
                f"transformation was built with a rate of its own, which it keeps whatever "
                f"{type(attachment.scheduler).__name__} says"
            )
        return result

    @property
    def param_groups(self) -> Any:
        """The param groups, unless another scheduler is about to be attached to them."""
        if upstream.called_by_a_scheduler_of_braintools():
            raise RuntimeError(
                f"this {plain_name(self)} follows a {type(self._attachment.scheduler).__name__} of "
                f"brainsched, and would not follow a scheduler of braintools that is attached to "
                f"it: attach one of brainsched, scheduler.attach_optimizer(optimizer), or build "
                f"the optimizer with the other one"
            )
        try:
            return self.__dict__["param_groups"]
        except KeyError as error:  # in a clone that brainstate has just begun
            raise AttributeError(name="param_groups", obj=self) from error

    @param_groups.setter
    def param_groups(self, groups: Any) -> None:
        self.__dict__["param_groups"] = groups

    @property
    def current_lr(self) -> Any:
        """The applied rate of the first group."""
        return self._attachment.scheduler.current_lrs.value[0]

    @current_lr.setter
    def current_lr(self, value: Any) -> None:
        upstream.applied_rate(self, 0).value = value

    def get_last_lr(self) -> list[Any]:
        """Return the applied rate of each group."""
        return self._attachment.scheduler.get_last_lr()

    def add_scheduler(self, scheduler: Any) -> None:
        """Take note of the scheduler that is followed; refuse another, which nothing would read."""
        if scheduler is not self._attachment.scheduler:
            raise ValueError(
                f"an optimizer follows one scheduler, and this one has a "
                f"{type(self._attachment.scheduler).__name__}: replace it with "
                f"scheduler.attach_optimizer(optimizer), or join both in a SequentialLR or a "
                f"ChainedScheduler"
            )
        super().add_scheduler(scheduler)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the optimizer, rates included, unless the scheduler's own were restored."""
        attachment = self._attachment
        if not isinstance(state_dict, Mapping):
            raise TypeError(
                f"state_dict must be a dict, as optimizer.state_dict() gives, got "
                f"{type(state_dict).__name__}"
            )
        for key in ("step_count", "lr", "base_lr"):
            if key not in state_dict:
                raise ValueError(
                    f"state_dict has no {key!r}, which an optimizer's state has: give all that "
                    f"optimizer.state_dict() gave, and no more"
                )
        groups = state_dict.get("param_groups", {})
        if groups and len(groups) != len(self.param_groups):
            raise ValueError(
                f"the checkpoint has {len(groups)} param groups, but the optimizer has "
                f"{len(self.param_groups)}: register the weights and add the groups that it was "
                f"saved with, then load, and only then add others"
            )
        self._require_the_same_memory(state_dict)
        rates = attachment.scheduler.current_lrs.value
        saved = [groups.get(str(i), {}).get("lr", rate) for i, rate in enumerate(rates)]
        attachment.scheduler.current_lrs.normalise([state_dict["lr"], *saved[1:]], rates)
        restored = bool(attachment.restored)
        before = self.step_count.value
        super().load_state_dict(state_dict)
        if restored:  # what the scheduler has from its own checkpoint is the later word
            attachment.scheduler.current_lrs.value = rates
            attachment.restored = Unwritten(attachment.scheduler.current_lrs)
        elif not upstream.inside_a_trace():
            attachment.note_if_left_behind(steps=self.step_count.value - before)

    def _require_the_same_memory(self, state_dict: Mapping[str, Any]) -> None:
        """Raise where moments are saved of another algorithm, or of other parameters."""
        of_added = state_dict.get("param_groups_opt_states", {})
        memories = [("opt_state", state_dict.get("opt_state"), self.opt_state)]
        for i, memory in enumerate(self.param_groups_opt_states):
            memories.append((f"param_groups_opt_states[{i}]", of_added.get(str(i)), memory))
        for name, saved, memory in memories:
            if memory is None or saved is None:
                continue
            if _shapes(saved) != _shapes(memory.value):
                raise ValueError(
                    f"state_dict[{name!r}] is not of this {plain_name(self)}: it is of another "
                    f"optimizer, of parameters of other names or shapes, or of groups that were "
                    f"added in another order, so build this one as that was; or a file made "
                    f"dictionaries of it, of which flax.serialization.from_state_dict(optimizer."
                    f"state_dict(), read) makes what it was"
                )

    def _refuse_to_be_copied(self, *args: Any) -> NoReturn:
        name = plain_name(self)
        raise TypeError(
            f"a {name} with a scheduler cannot be copied or pickled, and a copy through the graph "
            f"cannot be used: its transformations are functions that hold the original's States. "
            f"Build another {name} with a scheduler of its own, register its weights, add the same "
            f"groups, and load what state_dict() of both gives. To restore the whole state in "
            f"place, use brainstate.graph.update_states"
        )

    __deepcopy__ = __copy__ = __reduce_ex__ = _refuse_to_be_copied


def _shapes(tree: Any) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return list(map(np.shape, leaves)), structure


@functools.cache
def _scheduled(cls: type[OptaxOptimizer]) -> Any:
    """Return the class of a ``cls`` that follows a scheduler of ours."""
    content = {"__doc__": cls.__doc__, "__module__": cls.__module__, "_plain_class": cls}
    return types.new_class(
        f"Scheduled{cls.__name__}",
        (ScheduledOptimizer, cls),
        exec_body=lambda ns: ns.update(content),
    )


def make_scheduled(optimizer: OptaxOptimizer) -> None:
    """Let ``optimizer`` do what it does besides.

    ``__class__`` is assigned: methods that are put on an instance would be copied by graph clones,
    and then act on the original.
    """
    if not isinstance(optimizer, ScheduledOptimizer):
        cls: Any = type(optimizer)
        optimizer.__class__ = _scheduled(cls)
