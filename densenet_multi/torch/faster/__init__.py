"""The same network, said again for speed or memory. Readers of the lesson may ignore this folder.

One mechanism, the same in all four backends: ``exchange`` gives modules other classes, which
compute the same function from the same weights. layers.py, model.py and weights.py know nothing of
it; predict.py and train.py use two names.
"""

from .inference import for_inference as for_inference
from .training import for_training as for_training
