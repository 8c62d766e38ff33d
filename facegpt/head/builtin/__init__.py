"""The built-in head: a parametric head made by code from figures of an average head (see `anatomy.py`)."""

from __future__ import annotations

from facegpt.head.files.format import HeadData


def build_head() -> HeadData:
    """Build the head from nothing, deterministically, in a few seconds. Takes no input; returns metres."""
    from facegpt.head.builtin.build import (
        build,  # half a second of scipy; with the head in the cache, nobody's
    )

    return build()
