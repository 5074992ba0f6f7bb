"""The layouts of arrays in Keras' and Flax' files, as axes for ``transpose``.

By number of dimensions: convolutions are HWIO there and OIHW here, linear layers (in, out) there
and (out, in) here.
"""

TO_CHANNELS_LAST = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
FROM_CHANNELS_LAST = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
