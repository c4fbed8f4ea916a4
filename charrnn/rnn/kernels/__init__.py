"""Code that is compiled for this processor."""
