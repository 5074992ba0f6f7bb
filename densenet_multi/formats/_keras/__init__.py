"""Read a Keras file's declaration as data: the JSON that describes a model's layers.

entries.py parses one layer's entry, and graph.py builds the graph of layers. declared.py follows
that graph from the images to the logits. layers.py, size.py, pixels.py and head.py check its parts;
found.py holds the result. names.py and texts.py handle layer names and the text of a declaration.
files.py maps a file's variables to tensors, and own.py reads this package's models. models.py runs
Keras itself; writing.py writes files.
"""
