"""Axes for ``transpose``, from this package's layouts to those of Keras and Flax files and back.

They are keyed by the number of dimensions. Keras and Flax store convolution weights as HWIO and
linear weights as (in, out); this package stores them as OIHW and (out, in).
"""

TO_CHANNELS_LAST = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
FROM_CHANNELS_LAST = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
