"""The link to an optimizer of braintools: the rates' home, and what the optimizer does besides.

upstream.py alone touches private names of others. It may import checks and types.
"""
