"""The bridge to ``braintools.trainer``: runs of its Trainer that can be stopped and resumed.

It may import schedules, core, link, checks and types.
"""

from brainsched.trainer.callback import SchedulerCheckpoint

__all__ = ["SchedulerCheckpoint"]
