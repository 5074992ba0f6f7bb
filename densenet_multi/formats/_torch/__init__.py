"""Read PyTorch files as data: their contents, and the modules of a complete model.

files.py returns everything in a file, with each tensor as a description of its bytes; beside.py
finds class names and modules among these objects. tree.py arranges the modules of a complete model
as a tree. whole.py checks each module against what this package's network has in the same place.
"""
