"""Training runs without a framework: recipe, run, history, state, run folder, running statistics.

The steps themselves belong to each backend: see its ``train.py``.
"""
