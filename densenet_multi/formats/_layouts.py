"""Axes for ``transpose`` between the array layouts of Keras and Flax files and this package's.

They are keyed by the number of dimensions. Convolutions are HWIO there and OIHW here; linear layers
are (in, out) there and (out, in) here.
"""

TO_CHANNELS_LAST = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
FROM_CHANNELS_LAST = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
