"""``python -m densenet_multi`` is ``densenet-multi``."""

from .commands.cli import main

main()
