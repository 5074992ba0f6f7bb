"""A ResNet to train beside a DenseNet, one module per framework; so far in PyTorch."""
