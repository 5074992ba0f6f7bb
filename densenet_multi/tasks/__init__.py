"""What a command does with any backend: train, evaluate, predict, convert.

The command line, with its options and tables, is in ``commands``.
"""
