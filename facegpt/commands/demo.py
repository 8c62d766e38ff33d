"""facegpt demo [--checkpoint RUN] [--port 7860]

Talks with a model in the browser, the one that comes with facegpt or the one of a checkpoint: a chat that
takes pictures (a file, the clipboard, the camera), a 3D view of every face it speaks, sliders that change the
face, and its files to take home. Prints the address and runs until Ctrl-C.

Everybody who opens the page has a conversation of their own; questions are answered one after the other, and
the page shows the place in the queue. It needs the package gradio (`pip install "facegpt[demo]"`) and nothing
from outside: no analytics, no fonts or scripts of other sites, no share link. Uploads and faces lie in a
folder of the demo's own and are deleted when the page is closed, at the latest when the demo ends.

Only this machine can open it, unless --host says otherwise (0.0.0.0: everybody who reaches this machine);
--user and --password ask for a login then.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from facegpt.config import at_least, parse_config
from facegpt.errors import ConfigError, MissingPartError

LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass
class DemoSettings:
    """checkpoint: a run or one of its checkpoints; without it, the model that comes with facegpt.
    head: "builtin" or the head file used in training.
    backbone: where the vision-language model lies, if it has moved.
    device: cuda or cpu; auto is the GPU where there is one.
    max_new_tokens: the longest reply.
    host: the address to listen at; only this machine reaches 127.0.0.1.
    port: the port to listen at.
    user: a name to log in with.
    password: the word that goes with it.
    max_upload: the largest picture, in megabytes.
    waiting: how many questions may wait for their answers.
    """

    checkpoint: Path | None = None
    head: str = "builtin"
    backbone: str | None = None
    device: str = "auto"
    max_new_tokens: int = 128
    host: str = "127.0.0.1"
    port: int = 7860
    user: str | None = None
    password: str | None = None
    max_upload: int = 15
    waiting: int = 64

    def __post_init__(self) -> None:
        at_least(1, self, "max_new_tokens", "port", "max_upload", "waiting")
        if self.port > 65535:
            raise ValueError(f"port={self.port} is none; they end at 65535")
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password go together; give both or none")


def main(argv: Sequence[str]) -> int:
    settings = parse_config(DemoSettings, argv, __doc__)
    begun = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the folder is deleted then, too
    if find_spec("gradio") is None:
        raise MissingPartError('the demo needs the package gradio: pip install "facegpt[demo]"')
    with tempfile.TemporaryDirectory(prefix="facegpt_demo_") as folder:
        page = start(settings, Path(folder).resolve())
        print(f"facegpt listens at {page.local_url} ({time.monotonic() - begun:.1f} s); Ctrl-C ends it")
        if settings.host not in LOCAL and settings.user is None:
            print("everybody who reaches this machine can use it; --user and --password ask for a login")
        sys.stdout.flush()
        page.block_thread()
    return 0


def start(settings: DemoSettings, folder: Path):  # type: ignore[no-untyped-def]
    """Open the model and serve the page from a thread; all files lie in `folder`. Returns gradio's Blocks.

    Raises ConfigError where the port is taken.
    """
    # gradio reads these when it is imported.
    os.environ |= {"GRADIO_TEMP_DIR": str(folder), "GRADIO_ANALYTICS_ENABLED": "False"}
    os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
    from facegpt.chat import newest_checkpoint
    from facegpt.commands.chat_settings import ChatSettings
    from facegpt.commands.chat_turns import open_model
    from facegpt.commands.demo_examples import make_examples
    from facegpt.commands.demo_page import build_page
    from facegpt.commands.demo_server import launch
    from facegpt.commands.demo_visits import Visits

    checkpoint = newest_checkpoint(settings.checkpoint)
    same = {name: getattr(settings, name) for name in ("head", "backbone", "device", "max_new_tokens")}
    model, head = open_model(ChatSettings(checkpoint, **same), checkpoint)
    visits = Visits(model, head, folder, settings.max_new_tokens)
    page = build_page(visits, make_examples(head, folder), settings.waiting)
    login = None if settings.user is None else (settings.user, str(settings.password))
    try:
        launch(page, settings.host, settings.port, login, settings.max_upload)
    except OSError as error:
        taken = f"port {settings.port} of {settings.host} cannot be had; name another one with --port"
        raise ConfigError(taken) from error
    return page
