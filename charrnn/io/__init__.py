"""Atomic writes, locks, and the container format."""
