"""The same network, rewritten for speed or memory. To learn DenseNet, ignore this folder.

All four backends use the same mechanism: ``exchange`` swaps the class of a module instance for
one that computes the same function from the same weights. layers.py, model.py and weights.py do not
depend on this folder; predict.py and train.py import only the two functions below.
"""

from .inference import for_inference as for_inference
from .training import for_training as for_training
