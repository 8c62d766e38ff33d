"""The pieces of a self-contained HTML page: pictures as data URIs, tables, line charts as inline SVG."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

from PIL import Image

STYLE = """
:root { --ink: #1c2024; --soft: #687076; --line: #e2e5e9; --paper: #ffffff; --shade: #f6f7f9;
  --accent: #1f6f8b; --second: #c8553d; --third: #7a6a9e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaed; --soft: #9aa3ab; --line: #30363d;
  --paper: #15191e; --shade: #1d2329; --accent: #5fb3cf; --second: #e58a74; --third: #b3a4d6; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1040px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 3rem 0 .6rem; padding-top: 1.2rem; border-top: 1px solid var(--line); }
p { margin: .5rem 0; max-width: 72ch; }
.soft { color: var(--soft); font-size: .92rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .95rem; }
th, td { text-align: right; padding: .5rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; white-space: normal; min-width: 7.5rem; }
thead th { color: var(--soft); font-weight: 500; font-size: .85rem; }
td.main { font-weight: 650; }
td small { color: var(--soft); font-weight: 400; }
.scroll { overflow-x: auto; margin: .3rem 0 1.4rem; }
.face { margin: 1.1rem 0 1.6rem; }
.face > p { margin: .1rem 0 .5rem; }
.strip { display: grid; grid-template-columns: repeat(var(--columns, 5), 1fr); gap: .6rem; }
figure { margin: 0; }
figure img { width: 100%; height: auto; display: block; border-radius: 8px; background: var(--shade); }
figcaption { font-size: .8rem; color: var(--soft); padding-top: .25rem; line-height: 1.35; }
blockquote { margin: 0 0 .6rem; padding: .6rem .9rem; background: var(--shade); border-radius: 8px;
  font-size: .95rem; }
.charts { display: grid;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr)); gap: 1.6rem; }
svg { width: 100%; height: auto; display: block; }
svg text { font: 11px system-ui, sans-serif; fill: var(--soft); }
.legend span { display: inline-block; margin-right: 1rem; font-size: .82rem; color: var(--soft); }
.legend i { display: inline-block; width: .8rem; height: .2rem; margin-right: .35rem;
  vertical-align: middle; }
code { font: .88em ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; font-size: .9rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 640px) { main { padding: 1.5rem 1rem 3rem; } h1 { font-size: 1.5rem; }
  .strip { grid-template-columns: repeat(min(3, var(--columns, 5)), 1fr); gap: .45rem; }
  th, td { padding: .45rem .4rem; font-size: .86rem; } dl { grid-template-columns: 1fr; }
  dd { margin-bottom: .5rem; } }
@media print { main { max-width: none; } h2 { break-after: avoid; } .face { break-inside: avoid; } }
"""
COLORS = ("var(--accent)", "var(--second)", "var(--third)")


@dataclass
class Curve:
    """A line of a chart: points (x, y) in increasing x."""

    name: str
    points: list[tuple[float, float]]


def page(title: str, body: str, style: str = "", after: str = "") -> str:
    """A whole HTML document; needs nothing but itself. style: added to `STYLE`. after: HTML behind main."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}{style}</style></head>\n"
        f"<body><main>\n{body}\n</main>{after}</body></html>\n"
    )


def data_uri(image: Image.Image) -> str:
    """The picture as a JPEG inside an address."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def picture(image: Image.Image, alt: str) -> str:
    """An <img> with the picture inside, as JPEG."""
    size = f'width="{image.width}" height="{image.height}"'
    name = html.escape(alt, quote=True)
    return f'<img src="{data_uri(image)}" alt="{name}" {size} loading="lazy">'


def strip(pictures: Sequence[tuple[Image.Image, str]]) -> str:
    """Pictures side by side, each over its caption; three to a line on a phone."""
    figures = [
        f"<figure>{picture(image, caption)}<figcaption>{html.escape(caption)}</figcaption></figure>"
        for image, caption in pictures
    ]
    return f'<div class="strip" style="--columns:{len(figures)}">{"".join(figures)}</div>'


def table(header: Sequence[str], rows: Sequence[Sequence[str]], main: int | None = 1) -> str:
    """A table of ready HTML cells; column `main` is set in bold."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = ""
    for row in rows:
        marks = (' class="main"' if column == main else "" for column in range(len(row)))
        cells = (f"<td{mark}>{cell}</td>" for mark, cell in zip(marks, row, strict=True))
        body += f"<tr>{''.join(cells)}</tr>"
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def number(value: float | None, digits: int = 3, error: float | None = None) -> str:
    """A number for a table cell, with its standard error in small print; a dash where there is none."""
    if value is None:
        return "–"
    text = f"{value:.{digits}f}"
    return text if error is None else f"{text} <small>± {error:.{digits}f}</small>"


def chart(title: str, curves: Sequence[Curve], logarithmic: bool = False, unit: str = "steps") -> str:
    """A line chart as inline SVG; `logarithmic` is about y, `unit` is that of x.

    Points that cannot be drawn (not finite, not positive on a logarithmic axis) are left out; a chart without
    points says so.
    """
    curves = [Curve(curve.name, _drawable(curve.points, logarithmic)) for curve in curves]
    curves = [curve for curve in curves if curve.points]
    heading = f"<figcaption><strong>{html.escape(title)}</strong></figcaption>"
    if not curves:
        return f'<figure>{heading}<p class="soft">nothing was logged</p></figure>'
    xs = [x for curve in curves for x, _ in curve.points]
    ys = [y for curve in curves for _, y in curve.points]
    left, right, top, bottom = 46.0, 352.0, 10.0, 168.0
    x_low, x_high = min(xs), max(xs)
    ticks = _ticks(min(ys), max(ys))
    y_low, y_high = ticks[0], ticks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low) if x_high > x_low else 0.5
        up = (y - y_low) / (y_high - y_low)
        return left + across * (right - left), bottom - up * (bottom - top)

    parts, legend = [], []
    for tick in ticks:
        _, y = place(x_low, tick)
        label = f"{float(f'{10**tick:.2g}'):g}" if logarithmic else f"{tick:g}"
        parts.append(f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    parts.append(f'<text x="{left}" y="186">{x_low:g}</text>')
    parts.append(f'<text x="{right}" y="186" text-anchor="end">{x_high:g} {html.escape(unit)}</text>')
    for curve, color in zip(curves, cycle(COLORS), strict=False):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in curve.points))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.8"/>')
        legend.append(f'<span><i style="background:{color}"></i>{html.escape(curve.name)}</span>')
    name = html.escape(title, quote=True)
    drawing = f'<svg viewBox="0 0 360 192" role="img" aria-label="{name}">{"".join(parts)}</svg>'
    return f'<figure>{heading}{drawing}<div class="legend">{"".join(legend)}</div></figure>'


def _drawable(points: Sequence[tuple[float, float]], logarithmic: bool) -> list[tuple[float, float]]:
    finite = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    return [(x, math.log10(y)) for x, y in finite if y > 0] if logarithmic else finite


def definitions(rows: dict[str, str]) -> str:
    """A list of terms and explanations."""
    items = "".join(
        f"<dt>{html.escape(term)}</dt><dd>{html.escape(text)}</dd>" for term, text in rows.items()
    )
    return f"<dl>{items}</dl>"


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers that enclose [low, high], at most six; at least two even when low == high."""
    if high - low < 1e-12 * max(abs(low), abs(high), 1.0):
        low, high = low - 0.5 * max(abs(low), 1.0), high + 0.5 * max(abs(high), 1.0)
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(index * step, 12) for index in range(first, last + 1)]
