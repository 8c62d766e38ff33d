"""Parts that are grids of vertices: eyeballs, inner lids, ears, mouth cavity, teeth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass
class Grid:
    """Vertex ids in rows and columns.

    ids (R,C) into the head's vertices; closed: the last column joins the first; first, last: vertex ids that
    close the first or last row to a point. Triangles are counter-clockwise when columns run to the right and
    rows downwards as seen from outside; `flip` turns them round.
    """

    ids: Array
    closed: bool = False
    first: int | None = None
    last: int | None = None
    flip: bool = False

    def cells(self) -> Array:
        """Row and column numbers (F,3,2) of every triangle's corners; cap corners have row -1 or R."""
        rows, columns = self.ids.shape
        j = np.arange(columns if self.closed else columns - 1)
        corners = []
        for i in range(rows - 1):
            a, b, c, d = ([i, 0], [i + 1, 0], [i + 1, 1], [i, 1])
            corners += [[(p[0], x + p[1]) for p in quad] for x in j for quad in ((a, b, c), (a, c, d))]
        if self.first is not None:
            corners += [[(-1, x), (0, x), (0, x + 1)] for x in j]
        if self.last is not None:
            corners += [[(rows, x), (rows - 1, x + 1), (rows - 1, x)] for x in j]
        cells = np.array(corners)
        return cells[:, ::-1] if self.flip else cells

    def triangles(self) -> Array:
        """Vertex ids (F,3)."""
        rows, columns = self.ids.shape
        cells = self.cells()
        row, column = cells[..., 0], cells[..., 1] % columns
        ids = self.ids[np.clip(row, 0, rows - 1), column]
        ids = np.where(row == -1, -1 if self.first is None else self.first, ids)
        return np.where(row == rows, -1 if self.last is None else self.last, ids)

    def unwrap_rectangle(self, box: tuple[float, float, float, float]) -> Array:
        """Texture coordinates (F,3,2) in the box (u0, v0, u1, v1), row 0 at the top; caps become rows."""
        rows, columns = self.ids.shape
        cells = self.cells().astype(float)
        top = 0 if self.first is None else -1
        height = rows - 1 - top + (self.last is not None)
        at_cap = (cells[..., 0] == -1) | (cells[..., 0] == rows)
        across = cells[..., 1] + 0.5 * at_cap
        u = across / (columns if self.closed else columns - 1)
        v = 1 - (cells[..., 0] - top) / height
        if self.flip:
            u = 1 - u
        return np.stack([box[0] + (box[2] - box[0]) * u, box[1] + (box[3] - box[1]) * v], -1)
