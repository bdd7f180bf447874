"""From a config to a scheduler.

It may import schedules, core, link, checks and types.
"""
