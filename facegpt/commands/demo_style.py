"""`facegpt demo`: how the page looks. Fonts are those of the visitor's system: nothing is fetched."""

from __future__ import annotations

import gradio as gr

from facegpt.visualize import BACKGROUND

FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
THEME = gr.themes.Default(
    primary_hue="orange",
    neutral_hue="stone",
    radius_size="lg",
    font=[gr.themes.Font(name) for name in FONT],
    font_mono=[gr.themes.Font("ui-monospace"), gr.themes.Font("monospace")],
)
CLEAR_COLOR = (*BACKGROUND, 1.0)  # of the 3D view: that of the pictures

CSS = """
.gradio-container { max-width: 1320px !important; margin: 0 auto !important; }
.gradio-container .fillable { padding: 14px 18px !important; max-width: 1320px !important; }
footer { display: none !important; }
#title { padding: 0 !important; overflow: visible; }
#title h1 { font-size: 1.3rem; margin: 0; display: inline; }
#title p { display: inline; margin-left: .6rem; color: var(--body-text-color-subdued); font-size: .92rem; }
#chat .placeholder { padding: 18px 16px 0; }
#chat .example { border: 1px solid var(--border-color-primary); border-radius: 12px; }
.face-card { display: flex; gap: 14px; align-items: center; margin: 8px 0 2px; max-width: 430px; }
.face-card img { width: 148px; height: 148px; border-radius: 12px; margin: 0 !important; flex: none; }
.face-card .about { min-width: 0; line-height: 1.45; font-size: .88rem; }
.face-card .name { font-weight: 600; font-size: 1rem; }
.face-card progress { appearance: none; width: 100%; height: 6px; display: block; margin: 3px 0 7px; }
.face-card progress::-webkit-progress-bar { background: #e7e5e4; border-radius: 3px; }
.face-card progress::-webkit-progress-value { background: #ea580c; border-radius: 3px; }
.face-card progress::-moz-progress-bar { background: #ea580c; }
.face-card a { margin-right: 8px; white-space: nowrap; }
.shown { border-radius: 12px; max-width: 180px; margin: 0 0 6px !important; display: block; }
.note { color: var(--body-text-color-subdued); font-size: .84rem; }
.error { color: #b91c1c; } .dark .error { color: #fca5a5; }
#nothing > div, #nothing .prose { height: 100%; }
#nothing { border: 2px dashed var(--border-color-primary); border-radius: 14px; }
#nothing div { display: flex; flex-direction: column; justify-content: center; text-align: center;
  min-height: min(600px, 66vh); color: var(--body-text-color-subdued); }
#faces .grid-container { grid-template-columns: repeat(auto-fill, 88px) !important; gap: 8px; }
#faces .grid-wrap { min-height: 0; padding: 6px; }
#about { align-self: center; } #about b { font-size: 1.05rem; margin-right: .4rem; }
#picture img { object-fit: cover; }
#chosen { align-items: center; }
#chat .prose { opacity: 1; }
.knobs .form { background: none; border: none; box-shadow: none; gap: 6px 22px; }
.knobs .block label, .knobs .block span { white-space: nowrap; }
.knobs { gap: 4px 18px !important; }
.knobs .block { border: none; padding: 2px 4px !important; background: none; box-shadow: none; }
.knobs .min_value, .knobs .max_value { display: none; }
@media (min-width: 900px) { #chat { height: min(720px, 76vh) !important; } }
@media (max-width: 640px) {
  .gradio-container .fillable { padding: 8px !important; }
  #title p { display: block; margin: 0; }
  .face-card img { width: 96px; height: 96px; }
  #nothing { display: none; }
}
"""
