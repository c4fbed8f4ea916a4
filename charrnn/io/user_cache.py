"""The folder in which a program keeps what it can make again."""

import os
from pathlib import Path


def user_cache() -> Path | None:
    """Return the user's folder for charrnn, which need not exist; None if it would be relative to the current one."""
    named = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(named) / "charrnn" if Path(named).is_absolute() else None
