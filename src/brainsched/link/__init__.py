"""The link to an optimizer of braintools: the State of the rates, and the optimizer's additions.

Only states.py touches private names of others. It may import checks and types.
"""
