"""The work behind the commands, in any backend: train, evaluate, predict, convert.

The command line itself, with options and tables, is in ``commands``.
"""
