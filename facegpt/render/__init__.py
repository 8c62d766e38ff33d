"""Camera, light, rasterizers and the renderer that joins them."""

from facegpt.render.rasterize import Fragments, rasterize
from facegpt.render.renderer import Rendering, render, render_mesh

__all__ = ["Fragments", "Rendering", "rasterize", "render", "render_mesh"]
