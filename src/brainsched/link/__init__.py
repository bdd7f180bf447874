"""The link to an optimizer of braintools: the State of the rates, and the optimizer's additions.

states.py and trainer_upstream.py touch private names of others. It may import checks and types.
"""
