"""Runs charrnn from a checkout without installing it: ``python cli.py train corpus.txt``."""

from charrnn.__main__ import main

if __name__ == "__main__":
    main()
