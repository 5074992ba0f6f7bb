"""What all backends' training shares: recipe, run, history, state, run folder, running statistics.

Each backend has its own training loop: see its ``train.py``.
"""
