"""The bridge to ``braintools.trainer``: runs of its Trainer that can be stopped and resumed."""

from brainsched.trainer.callback import SchedulerCheckpoint

__all__ = ["SchedulerCheckpoint"]
