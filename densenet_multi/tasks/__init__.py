"""The functions behind the commands: train, evaluate, predict and convert, in any backend.

The command line itself, with options and tables, is in ``commands``.
"""
