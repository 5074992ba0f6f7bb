"""What a training run is apart from its steps: recipe, run, history, state, run folder, statistics.

The steps are each backend's own: its ``train.py``.
"""
