"""``python -m densenet_multi`` is ``densenet-multi``."""

from .cli import main

main()
