"""Read PyTorch files as data: their contents, and the modules of a complete model.

files.py returns everything in a file, with each tensor as a description of its bytes; beside.py
finds class names and modules among these objects. tree.py arranges the modules of a complete model
as a tree. whole.py checks that each module is one that a network of this package has in that place.
"""
