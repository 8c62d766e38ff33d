"""`facegpt demo`: how the page looks. Fonts are those of the visitor's system: nothing is fetched."""

from __future__ import annotations

import gradio as gr

from facegpt.visualize import BACKGROUND

FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
THEME = gr.themes.Soft(
    primary_hue="orange",
    neutral_hue="stone",
    radius_size="lg",
    font=[gr.themes.Font(name) for name in FONT],
    font_mono=[gr.themes.Font("ui-monospace"), gr.themes.Font("monospace")],
)
CLEAR_COLOR = (*BACKGROUND, 1.0)  # of the 3D view: that of the pictures

CSS = """
.gradio-container { max-width: 1320px !important; margin: 0 auto; padding: 12px 16px !important; }
footer { display: none !important; }
#title { padding: 0 2px; }
#title h1 { font-size: 1.35rem; margin: 0; display: inline; }
#title p { display: inline; margin-left: .6rem; color: var(--body-text-color-subdued); font-size: .92rem; }
.face-card { display: flex; gap: 14px; align-items: center; margin: 8px 0 2px; max-width: 420px; }
.face-card img { width: 148px; height: 148px; border-radius: 12px; margin: 0 !important; flex: none; }
.face-card .about { min-width: 0; line-height: 1.45; font-size: .9rem; }
.face-card .name { font-weight: 600; font-size: 1rem; }
.face-card progress { width: 100%; height: 6px; accent-color: #ea580c; display: block; margin: 2px 0 6px; }
.face-card a { margin-right: 10px; white-space: nowrap; }
.shown { border-radius: 12px; max-width: 180px; margin: 0 0 6px !important; display: block; }
.note { color: var(--body-text-color-subdued); font-size: .85rem; }
.error { color: #b91c1c; } .dark .error { color: #fca5a5; }
#faces .grid-wrap { max-height: 110px; min-height: 0; }
@media (max-width: 640px) {
  .gradio-container { padding: 6px 8px !important; }
  #title p { display: block; margin: 0; }
  .face-card img { width: 112px; height: 112px; }
}
"""
