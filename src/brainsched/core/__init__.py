"""The schedule and the scheduler: everything a class of one formula inherits.

Evaluation, base rates, arguments, States, config, checkpoints and copies. It may import link,
checks and types.
"""
