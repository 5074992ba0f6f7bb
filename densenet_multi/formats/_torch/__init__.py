"""PyTorch's files, read as data: what is in them, and what a whole model shows of itself.

files.py gives everything in a file, its tensors as descriptions of bytes; beside.py finds class
names and modules among it. tree.py arranges the modules of a whole model, and whole.py checks that
each is what a network of this package has at its place.
"""
