"""What tests of `facegpt serve` send."""

from __future__ import annotations

import base64
import io

from PIL import Image


def data_url(image: Image.Image) -> str:
    """A picture as it stands in a request."""
    file = io.BytesIO()
    image.save(file, "png")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
