"""Finds the user's cache directory."""

import os
from pathlib import Path


def user_cache() -> Path | None:
    """Return charrnn's cache directory, which need not exist, or None if its path is not absolute."""
    root = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(root) / "charrnn" if Path(root).is_absolute() else None
