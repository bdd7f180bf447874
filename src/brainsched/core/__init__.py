"""The schedule and the scheduler: what a class of one formula gets besides.

Evaluation, base rates, arguments, States, config, checkpoints and copies. It may import link,
checks and types.
"""
