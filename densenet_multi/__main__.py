"""``python -m densenet_multi`` runs the command ``densenet-multi``."""

import signal


def run() -> None:
    """Run the command line in this process.

    Before and after a command there is nothing to save or clean up, so Ctrl-C ends the process at
    once, as SIGTERM does, without a Python traceback.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # unless SIGINT is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .commands import main

    main()


if __name__ == "__main__":
    run()
