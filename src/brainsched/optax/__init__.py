"""The bridge to optax and Flax (``import optax`` stays the library).

It may import schedules, core, link, checks and types.
"""
