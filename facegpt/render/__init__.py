"""Camera, light, rasterizers and the renderer that joins them."""

from facegpt.render.rasterize import rasterize
from facegpt.render.renderer import render, render_mesh
from facegpt.render.rendering import Fragments, Rendering

__all__ = ["Fragments", "Rendering", "rasterize", "render", "render_mesh"]
