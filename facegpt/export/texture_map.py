"""What mesh files need of a texture: one UV per vertex, pictures of it, and its colour space."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from facegpt.head.mesh import Mesh


def split_seams(mesh: Mesh) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One UV per vertex: which vertex each new vertex copies (N,), UVs (N,2), triangles (F,3).

    The first V new vertices are the old ones, each with one of its UVs.
    """
    assert mesh.uv is not None and mesh.uv_triangles is not None
    triangles, uv_triangles = mesh.triangles.numpy(), mesh.uv_triangles.numpy()
    count = mesh.vertices.shape[1]
    pairs = np.stack([triangles.ravel(), uv_triangles.ravel()], axis=1)
    unique, inverse = np.unique(pairs, axis=0, return_inverse=True)  # sorted by vertex
    leads = np.ones(len(unique), bool)
    leads[1:] = unique[1:, 0] != unique[:-1, 0]
    lead, extra = np.flatnonzero(leads), np.flatnonzero(~leads)
    number = np.empty(len(unique), np.int64)
    number[lead] = unique[lead, 0]
    number[extra] = count + np.arange(len(extra))
    source = np.concatenate([np.arange(count), unique[extra, 0]])
    uv = np.zeros((len(source), 2), np.float32)  # a vertex without triangle has no UV
    uv[number] = mesh.uv.numpy()[unique[:, 1]]
    return source, uv, number[inverse.reshape(-1)].reshape(-1, 3)


def to_bytes(values: Tensor) -> np.ndarray:
    """[0,1] to 0..255, rounded."""
    array: np.ndarray = (values.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    return array


def to_picture(texture: Tensor) -> Image.Image:
    """Texture (H,W,3) in [0,1] as an 8-bit picture."""
    return Image.fromarray(to_bytes(texture))


def to_linear(display: np.ndarray) -> np.ndarray:
    """Display-coded values in [0,1] to linear light by the sRGB curve (IEC 61966-2-1)."""
    x = np.clip(np.asarray(display, np.float64), 0, 1)
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
