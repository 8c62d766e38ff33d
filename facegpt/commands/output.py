"""Where results go: looked at before the work, so that it is not done in vain."""

from __future__ import annotations

import os
from pathlib import Path

from facegpt.errors import ConfigError


def check_output(path: Path, folder: bool = False) -> None:
    """Raise ConfigError when the file `path`, or files in the folder `path`, could not be written."""
    if not folder and path.is_dir():
        raise ConfigError(f"{path} is a folder; name a file")
    place = path if folder else path.parent
    nearest = next(parent for parent in (place, *place.absolute().parents) if parent.exists())
    if not nearest.is_dir():
        raise ConfigError(f"{path} cannot be written: {nearest} is no folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise ConfigError(f"{path} cannot be written: the folder {nearest} may not be written to")
