"""Train a small recurrent network on a text, character by character, and write new text in its style."""

__version__ = "0.1.0"
