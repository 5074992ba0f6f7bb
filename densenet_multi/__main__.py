"""``python -m densenet_multi`` is ``densenet-multi``."""

from .commands import main

main()
