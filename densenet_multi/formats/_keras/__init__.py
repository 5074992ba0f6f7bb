"""What a Keras model declares about itself, read as data: its layers, their order, their settings.

entries.py reads one layer's entry and graph.py which layer reads which; declared.py follows them
from the images to the logits with layers.py, size.py, pixels.py and head.py, and found.py holds
what they have seen. names.py and texts.py: how layers are called. files.py: which variable of a
file is which tensor. own.py: this package's models. models.py asks Keras itself; writing.py writes.
"""
