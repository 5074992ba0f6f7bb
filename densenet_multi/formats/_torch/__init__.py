"""PyTorch's files, read as data: their contents, and what the modules of a whole model show.

files.py returns everything in a file, with its tensors as descriptions of bytes; beside.py finds
class names and modules in it. tree.py arranges the modules of a whole model as a tree, and whole.py
checks that each is what a network of this package has at its place.
"""
