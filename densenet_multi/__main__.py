"""``python -m densenet_multi`` is ``densenet-multi``."""

import signal


def run() -> None:
    """Run the command line as this process.

    Before and after a command there is nothing to save or to tidy up: Ctrl-C ends the process at
    once, as SIGTERM does, and without Python's traceback.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # it is not ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .commands import main

    main()


if __name__ == "__main__":
    run()
