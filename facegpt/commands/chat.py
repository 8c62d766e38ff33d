"""facegpt chat --prompt "..." [--image FILE] [--checkpoint RUN] [--out DIR]

Asks a model once, the one that comes with facegpt or the one of a checkpoint, and writes DIR/reply.txt and,
for every `<FACE>` of the reply, DIR/face_0.glb, face_0.png and face_0.json (its coefficients by name); with
--rigged also face_0_rigged.glb, which Blender, three.js or a game engine can animate. What is in DIR already
stays: faces are numbered on, and a further reply is reply_1.txt. A reply without a face is an answer like any
other; with --expect-face it is an error, exit code 3.

Without --prompt it chats until the input ends, a message on each line, typed or piped: `/image FILE` shows a
picture with the next message, `/expression smile 0.5` changes the last face, `/save DIR` keeps all of it
elsewhere, `/reset` starts over, `/help` says more. In a terminal the faces are shown as well as it can: by
kitty's or iTerm2's pictures, sixels, or coloured half blocks. --json writes one line of JSON for each reply.

--image takes any photograph: its largest face is found and cut out as in training, and a picture without a
face goes in whole. --landmarks FILE says where the face is. Without the part that finds faces (`facegpt fetch
face_landmarker`) a picture goes in as it is; give a crop around one face then.

--batch FILE.jsonl answers a file of requests instead, each a conversation of its own: lines of {"id", "text"}
and, where there is a picture, "image", its path from the folder of FILE. DIR/replies.jsonl has for each its
`id`, `request` and `image`, the `text` of the reply, how many `faces` it has, and of every face one entry in
`probabilities` and `parameters` (its coefficients by name); with --meshes also DIR/ID_0.glb and ID_0.png. Run
again, it goes on where it was stopped.
"""

from __future__ import annotations

from collections.abc import Sequence

from facegpt.commands.chat_settings import ChatSettings
from facegpt.config import parse_config


def main(argv: Sequence[str]) -> int:
    settings = parse_config(ChatSettings, argv, __doc__)
    # Importing the language model's libraries takes seconds: the command line is judged before.
    if settings.batch is not None:
        from facegpt.commands.chat_batch import answer_file

        return answer_file(settings, settings.batch)
    from facegpt.commands.chat_repl import talk

    return talk(settings)
