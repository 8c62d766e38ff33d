"""Four meetings with the model that comes with facegpt: `python scripts/meet.py data=DIR out=DIR`.

It is shown a face photograph of a data set, told an explicit wish and a speculative one, and asked an
ordinary question, each in a conversation of its own. The first three should bring a face and the last none:
another outcome is an error, exit code 1 (check=false only tells). Where a part of the model is missing, it
says so and ends with exit code 3. In `out`: meetings.json, meetings.jpg with what was said beside the faces,
and for every face a GLB and a PNG.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from PIL import Image

from facegpt.chat import ChatSession, newest_checkpoint
from facegpt.commands.chat_turns import strange_face, write_mesh
from facegpt.config import at_least, parse_config, refuse, run
from facegpt.data.records import read_records
from facegpt.errors import MissingPartError, SampleError
from facegpt.files import atomic_path, write_json
from facegpt.head.model import HeadModel
from facegpt.machine import choose_device
from facegpt.model.checkpoint import load_facegpt
from facegpt.visualize import dialogue_sheet

MISSING_PART_CODE = 3


@dataclass(frozen=True)
class Meeting:
    """name: of its files. shown: with a photograph. face: whether the reply should have one."""

    name: str
    text: str
    face: bool
    shown: bool = False


MEETINGS = (
    Meeting("photograph", "This is a friend of mine. Could you do a 3D face of it?", True, shown=True),
    Meeting("explicit", "I need the face of a man with dark skin who grins and looks to the left.", True),
    Meeting("speculative", "Her team just lost the final in the last minute. Show me how she looks.", True),
    Meeting("question", "Why do the leaves turn red in autumn?", False),
)


@dataclass
class MeetSettings:
    """out: folder for what comes of it.
    data: face records or a folder of photographs; the first one is shown.
    checkpoint: a run or one of its checkpoints; without it, the model that comes with facegpt.
    head: "builtin" or the head file used in training.
    backbone: where the vision-language model lies, if it has moved.
    device: cuda or cpu; auto is the GPU where there is one.
    max_new_tokens: the longest reply.
    check: another outcome than the expected one is an error.
    """

    out: Path = Path("outputs/demo/meetings")
    data: Path = Path("outputs/demo/data/test")
    checkpoint: Path | None = None
    head: str = "builtin"
    backbone: str | None = None
    device: str = "auto"
    max_new_tokens: int = 96
    check: bool = True

    def __post_init__(self) -> None:
        at_least(1, self, "max_new_tokens")


def main(argv: list[str]) -> int:
    settings = parse_config(MeetSettings, argv, __doc__)
    transformers.utils.logging.disable_progress_bar()
    records = read_records(settings.data)
    if not len(records):
        raise SampleError(f"{settings.data} has no photograph to show; name another folder with data=DIR")
    start = time.time()
    try:
        checkpoint = newest_checkpoint(settings.checkpoint)
        head = HeadModel.open(settings.head)
        device = choose_device(settings.device)
        model, _ = load_facegpt(checkpoint, head, device, backbone=settings.backbone, merge=True)
    except MissingPartError as error:
        refuse(error)
        return MISSING_PART_CODE
    print(f"the model of {checkpoint} is here after {time.time() - start:.1f} s")

    rows: list[dict[str, Any]] = []
    pictures: list[tuple[str, str, Image.Image | None, Image.Image | None]] = []
    for meeting in MEETINGS:
        photograph = records[0].image if meeting.shown else None
        start = time.time()
        turn = ChatSession(model, settings.max_new_tokens).say(meeting.text, photograph)
        files = [settings.out / f"{meeting.name}_{number}.glb" for number in range(len(turn.faces))]
        try:
            faces = [write_mesh(head, face.to("cpu"), f) for face, f in zip(turn.faces, files, strict=True)]
        except ValueError as error:  # a face of NaN or of a size beyond all bounds
            raise strange_face(checkpoint, error) from None
        seconds = time.time() - start
        said = {"meeting": meeting.name, "asked": meeting.text, "answered": turn.text}
        made = {"files": [str(file) for file in files], "probabilities": turn.probabilities}
        rows.append({**said, **made, "seconds": round(seconds, 2)})
        pictures.append((meeting.text, turn.text, photograph, faces[0] if faces else None))
        print(f"\nyou:   {meeting.text}\nmodel: {turn.text}   ({seconds:.1f} s)", *files, sep="\n  ")
    sheet = settings.out / "meetings.jpg"
    with atomic_path(sheet) as path:
        dialogue_sheet(pictures).save(path, quality=92)
    write_json(settings.out / "meetings.json", {"checkpoint": str(checkpoint), "meetings": rows})
    print(f"\nwrote {sheet}")
    return judge(rows) if settings.check else 0


def judge(rows: list[dict[str, Any]]) -> int:
    """0 where every meeting went as it should, else 1 after a sentence."""
    faults = [
        f"{meeting.name} brought {'no face' if meeting.face else 'a face that nobody asked for'}"
        for meeting, row in zip(MEETINGS, rows, strict=True)
        if bool(row["files"]) != meeting.face
    ]
    if faults:
        print(f"error: not every meeting went as it should: {', '.join(faults)}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(run(main))
