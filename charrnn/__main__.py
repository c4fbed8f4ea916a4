"""Entry point of ``python -m charrnn`` and of the ``charrnn`` command."""

import sys


def main() -> None:
    """Run the command line. Ctrl-C during the imports exits without a traceback."""
    try:
        from charrnn.cli.app import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run())


if __name__ == "__main__":
    main()
