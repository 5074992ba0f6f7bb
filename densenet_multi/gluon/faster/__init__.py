"""The same network, written again for speed or memory. Ignore this folder to learn DenseNet.

One mechanism, the same in all four backends: ``exchange`` gives blocks other classes, which
compute the same function from the same weights. layers.py, model.py and weights.py know nothing of
it; predict.py and train.py use two names.
"""

from .inference import for_inference as for_inference
from .training import for_training as for_training
