"""``python -m charrnn`` and the ``charrnn`` program: the smallest door into ``cli/app.py``."""

import sys


def main() -> None:
    """Runs the command line; an interrupt while it is still loading ends it quietly, too."""
    try:
        from charrnn.cli.app import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run())


if __name__ == "__main__":
    main()
