"""The learning-rate range test.

It may import schedules, core, link, checks and types.
"""
