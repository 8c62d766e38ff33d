"""`facegpt demo`: the page - a chat on the left, on the right the selected face with sliders and files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from facegpt.commands.demo_examples import Example
from facegpt.commands.demo_faces import FILES, change_face
from facegpt.commands.demo_messages import messages
from facegpt.commands.demo_sliders import LIGHT_SLIDERS, face_sliders, positions
from facegpt.commands.demo_style import CLEAR_COLOR
from facegpt.commands.demo_talk import answer, hear
from facegpt.commands.demo_visits import OURS, Visit, Visits

# All that needs the processor for a while shares one queue: one at a time, in the order of asking.
QUEUE = {"concurrency_id": "model", "concurrency_limit": 1}
PICTURES = [".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"]
INTRODUCTION = (
    "### Show me a face, or tell me of one\n"
    "Whatever I answer with a face becomes a head that you can turn, change and take home."
)
EMPTY = "<div><b>Faces appear here</b><br>as soon as one is spoken: in 3D, with sliders, to take home.</div>"


def build_page(visits: Visits, examples: list[Example], waiting: int) -> gr.Blocks:
    """The page, ready to be launched; at most `waiting` questions wait for their answers."""
    sliders = face_sliders(visits.head)
    with gr.Blocks(title="facegpt", analytics_enabled=False) as page:
        gr.HTML("<h1>facegpt</h1><p>a language model that speaks in 3D faces</p>", elem_id="title")
        with gr.Row():
            with gr.Column(scale=5, min_width=340):
                chat, box, camera, photo, over = _chat_side(examples)
            with gr.Column(scale=7, min_width=340):
                panel = Panel(visits, sliders)

        def take(payload: dict[str, Any] | None, request: gr.Request) -> tuple[Any, ...]:
            visit = visits.of(str(request.session_hash))
            payload = payload or {}
            files = payload.get("files") or [None]
            upload = uploaded(visits.folder, files[0])
            visit.uploads |= set() if upload is None else {upload}
            hear(visit, str(payload.get("text") or ""), upload)
            return messages(visit), gr.MultimodalTextbox(value=None)

        def take_example(event: gr.SelectData, request: gr.Request) -> list[dict[str, Any]]:
            visit, example = visits.of(str(request.session_hash)), examples[int(event.index)]
            hear(visit, example.text, example.picture)
            return messages(visit)

        def reply(request: gr.Request) -> Iterator[list[dict[str, Any]]]:
            visit = visits.of(str(request.session_hash))
            for _ in answer(visits, visit, sliders):
                yield messages(visit)
            yield messages(visit)

        def start_over(request: gr.Request) -> tuple[Any, ...]:
            visits.of(str(request.session_hash)).start_over()
            return [], gr.MultimodalTextbox(value=None)

        def leave(request: gr.Request) -> None:
            visits.leave(str(request.session_hash))

        # Without gradio's own check of files, one of a wrong kind is a sentence in the chat and no pop-up.
        asked = box.submit(take, [box], [chat, box], preprocess=False, queue=False, api_name="take")
        clicked = chat.example_select(take_example, None, chat, queue=False, api_name=False)
        for event in (asked, clicked):
            said = event.then(reply, None, chat, **QUEUE, api_name="answer" if event is asked else False)
            panel.redraw(
                said.then(panel.show, None, panel.parts, queue=False, show_progress="hidden", api_name="face")
            )
        gr.on([over.click, chat.clear], start_over, None, [chat, box], **QUEUE, api_name="start_over").then(
            panel.show, None, panel.parts, queue=False, show_progress="hidden", api_name=False
        )
        camera.click(lambda: gr.Image(visible=True), None, photo, queue=False, api_name=False)
        photo.input(take_photo, [photo, box], [box, photo], preprocess=False, queue=False, api_name=False)
        page.unload(leave)
    page.queue(max_size=waiting)
    return page


def _chat_side(
    examples: list[Example],
) -> tuple[gr.Chatbot, gr.MultimodalTextbox, gr.Button, gr.Image, gr.Button]:
    chat = gr.Chatbot(
        show_label=False,
        height="min(640px, 70vh)",
        placeholder=INTRODUCTION,
        examples=[_shown(example) for example in examples],
        buttons=[],
        feedback_options=None,
        latex_delimiters=[],
        elem_id="chat",
    )
    box = gr.MultimodalTextbox(
        show_label=False,
        placeholder="Describe a face, ask about a picture, or just talk",
        file_types=PICTURES,
        file_count="single",
        sources=["upload"],
        elem_id="box",
    )
    with gr.Row():
        camera = gr.Button("Camera", size="sm")
        over = gr.Button("Start over", size="sm")
    photo = gr.Image(
        sources=["webcam"], type="filepath", visible=False, label="A picture from the camera", height=300
    )
    return chat, box, camera, photo, over


def _shown(example: Example) -> dict[str, Any]:
    shown: dict[str, Any] = {"text": example.text, "display_text": f"{example.title}: {example.text}"}
    return shown | ({"icon": str(example.picture)} if example.picture else {})


class Panel:
    """The right side: faces to select, the 3D view, a second one beside it, sliders, files."""

    def __init__(self, visits: Visits, sliders: list[Any]) -> None:
        self.visits, self.sliders = visits, sliders
        self.empty = gr.HTML(EMPTY, elem_id="nothing")
        with gr.Column(visible=False) as self.full:
            self.gallery = gr.Gallery(
                show_label=False, columns=8, height="auto", allow_preview=False, buttons=[], elem_id="faces"
            )
            with gr.Row():
                view = {"clear_color": CLEAR_COLOR, "height": 360, "zoom_speed": 0.6, "interactive": False}
                self.view = gr.Model3D(**view, elem_id="view", min_width=260)
                self.other = gr.Model3D(**view, visible=False, elem_id="other", min_width=260)
                self.picture = gr.Image(
                    label="Drawn in this light",
                    interactive=False,
                    buttons=[],
                    height=360,
                    min_width=260,
                    elem_id="picture",
                )
            with gr.Row(elem_id="chosen"):
                self.about = gr.HTML(elem_id="about", min_width=200)
                self.beside = gr.Dropdown(
                    show_label=False, container=False, interactive=True, min_width=150, elem_id="beside"
                )
                back = gr.Button("Sliders back", size="sm", min_width=100)
            with gr.Row(elem_id="files"):
                self.files = [gr.DownloadButton(title, size="sm", min_width=96) for title in FILES]
            knobs = [s for s in sliders if s.group == "expression"]
            with gr.Tabs():
                with gr.Tab("Expression"), gr.Row(elem_classes="knobs"):
                    expression = [_knob(s.name, s.low, s.high, s.step) for s in knobs]
                with gr.Tab("Pose and light"), gr.Row(elem_classes="knobs"):
                    rest = [_knob(s.name, s.low, s.high, s.step) for s in sliders[len(knobs) :]]
                    light = [_knob(s.name, s.low, s.high, s.step) for s in LIGHT_SLIDERS]
            self.knobs = [*expression, *rest, *light]
        self.views = [self.gallery, self.view, self.other, self.picture, self.about, self.beside, *self.files]
        self.parts = [self.empty, self.full, *self.views, *self.knobs]

        silent = {"show_progress": "hidden"}
        gr.on(
            [knob.release for knob in self.knobs], self.change, self.knobs, self.views,
            **QUEUE, **silent, trigger_mode="always_last", api_name="change",
        )  # fmt: skip
        self.gallery.select(self.select, None, self.parts, queue=False, **silent, api_name=False)
        self.redraw(
            self.beside.input(self.put_beside, self.beside, self.views, queue=False, **silent, api_name=False)
        )
        back.click(self.take_back, None, self.parts, **QUEUE, **silent, api_name=False)

    def show(self, request: gr.Request) -> list[Any]:
        """The whole panel as the visit has it."""
        visit = self._visit(request)
        if visit.selected < 0:
            return [gr.HTML(visible=True), gr.Column(visible=False), *[gr.skip()] * (len(self.parts) - 2)]
        values = [gr.Slider(value=value) for value in visit.faces[visit.selected].values]
        return [gr.HTML(visible=False), gr.Column(visible=True), *self._views(visit), *values]

    def redraw(self, event: Any) -> None:
        """After the event, set the 3D views once more: one that appears with its value may stay blank."""
        both, silent = [self.view, self.other], {"queue": False, "show_progress": "hidden", "api_name": False}
        event.then(lambda: (None, None), None, both, **silent).then(self.meshes, None, both, **silent)

    def meshes(self, request: gr.Request) -> list[str | None]:
        """Files of the selected face and of the one beside it."""
        visit = self._visit(request)
        chosen = (visit.selected, visit.beside)
        return [str(visit.faces[k].file(".glb")) if 0 <= k < len(visit.faces) else None for k in chosen]

    def change(self, request: gr.Request, *values: float) -> list[Any]:
        """The sliders were moved: the selected face as they say."""
        visit = self._visit(request)
        change_face(self.visits.head, visit.faces[visit.selected], self.sliders, [float(v) for v in values])
        return self._views(visit)

    def select(self, event: gr.SelectData, request: gr.Request) -> list[Any]:
        visit = self._visit(request)
        visit.selected = max(-1, min(int(event.index), len(visit.faces) - 1))
        visit.beside = -1 if visit.beside == visit.selected else visit.beside
        return self.show(request)

    def put_beside(self, number: int, request: gr.Request) -> list[Any]:
        visit = self._visit(request)
        visit.beside = number if number in range(len(visit.faces)) else -1
        return self._views(visit)

    def take_back(self, request: gr.Request) -> list[Any]:
        """The sliders as the answer had them."""
        visit = self._visit(request)
        if visit.selected >= 0:
            face = visit.faces[visit.selected]
            values = [*positions(face.spoken, self.sliders), *(slider.studio for slider in LIGHT_SLIDERS)]
            change_face(self.visits.head, face, self.sliders, values)
        return self.show(request)

    def _visit(self, request: gr.Request) -> Visit:
        return self.visits.of(str(request.session_hash))

    def _views(self, visit: Visit) -> list[Any]:
        face = visit.faces[visit.selected]
        beside = visit.faces[visit.beside] if 0 <= visit.beside < len(visit.faces) else None
        others = [(f"beside {other.name}", other.number) for other in visit.faces if other is not face]
        about = f"<b>{face.name}</b> {face.probability:.0%} sure that a face belongs there"
        second = (str(beside.file(".glb")), beside.name) if beside else (None, None)
        strip = [(str(each.file(".png")), each.name) for each in visit.faces]
        return [
            gr.Gallery(strip, selected_index=visit.selected, visible=bool(others)),
            gr.Model3D(str(face.file(".glb")), label=face.name),
            gr.Model3D(second[0], label=second[1], visible=beside is not None),
            gr.Image(str(face.file(".png")), visible=beside is None),
            about,
            gr.Dropdown([("alone", -1), *others], value=visit.beside, visible=bool(others)),
            *(gr.DownloadButton(value=str(face.file(ending))) for ending in FILES.values()),
        ]


def _knob(name: str, low: float, high: float, step: float) -> gr.Slider:
    return gr.Slider(
        low, high, step=step, label=name, interactive=True, min_width=230, buttons=[], container=True
    )


def uploaded(folder: Path, file: Any) -> Path | None:
    """The upload that a client names, None without one. PermissionError for another file: it is deleted."""
    if not file:
        return None
    path = Path(os.path.realpath(str(file["path"] if isinstance(file, dict) else file)))
    if not path.is_relative_to(folder) or path.relative_to(folder).parts[0] in OURS or not path.is_file():
        raise PermissionError("that is no upload")
    return path


def take_photo(photo: Any, payload: dict[str, Any] | None) -> tuple[Any, ...]:
    """Put a picture from the camera into the message, and the camera away."""
    if not photo:
        return gr.skip(), gr.skip()
    text = (payload or {}).get("text") or ""
    return {"text": text, "files": [photo["path"]]}, gr.Image(value=None, visible=False)
