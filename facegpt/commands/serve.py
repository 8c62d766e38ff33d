"""facegpt serve [--checkpoint RUN] [--port 8000]

Answers over HTTP, until it is stopped, at http://127.0.0.1:8000:

  POST /v1/chat/completions   OpenAI's: text and pictures (data URLs), streaming; the message has `faces`,
                              each with its parameters and links to GLB, PNG and JSON
  POST /v1/faces              {"text", "image", "format"}: a text, a picture (data URL) or both to faces,
                              as JSON or as the GLB itself
  GET  /v1/faces/ID.glb       a face that was said, also .png and .json; with ?rigged=true one to animate
  GET  /v1/models             the model's name
  GET  /health /ready         whether it lives, and whether it takes requests now
  GET  /openapi.json          the schema

Requests that come together are answered together, and wait in a queue of limited length; a full one is
status 503. Nothing is kept on disk: of faces, the parameters of the last ones are remembered, and files are
made when they are asked for. Ctrl-C or SIGTERM lets what is being answered end first.

It listens on this machine alone unless --host says otherwise. With --api-key (better in a --config FILE.yaml,
where `ps` does not show it) every request but those for the status and for a known face needs it.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from facegpt.config import at_least, parse_config
from facegpt.errors import ConfigError, MissingPartError


@dataclass
class ServeSettings:
    """checkpoint: a run or one of its checkpoints; without it, the model that comes with facegpt.
    host: address to listen on; 0.0.0.0 is every network of this machine.
    port: 0 takes a free one.
    api_key: what clients must know.
    name: the model's name for clients.
    head: "builtin" or the head file used in training.
    backbone: where the vision-language model lies, if it has moved.
    device: cuda or cpu; auto is the GPU where there is one.
    max_new_tokens: the longest reply; clients may ask for less.
    batch_size: conversations that are answered at once.
    queue: requests that may wait.
    keep_faces: faces whose links work.
    max_body_mb: megabytes of a request.
    drain_seconds: how long requests may go on when the server is stopped.
    """

    checkpoint: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    name: str = "facegpt"
    head: str = "builtin"
    backbone: str | None = None
    device: str = "auto"
    max_new_tokens: int = 256
    batch_size: int = 16
    queue: int = 64
    keep_faces: int = 1000
    max_body_mb: float = 20.0
    drain_seconds: int = 30

    def __post_init__(self) -> None:
        at_least(1, self, "max_new_tokens", "batch_size", "queue", "keep_faces")
        at_least(0, self, "drain_seconds", "port")
        if not 0 < self.max_body_mb <= 1000:
            raise ValueError(f"max_body_mb must be above 0 and at most 1000, it is {self.max_body_mb}")
        if self.port > 65535:
            raise ValueError(f"port must be at most 65535, it is {self.port}")
        if self.api_key is not None and not (
            self.api_key.isascii() and self.api_key.isprintable() and self.api_key
        ):
            raise ValueError("api_key must be printable ASCII, at least one character")


def main(argv: Sequence[str]) -> None:
    settings = parse_config(ServeSettings, argv, __doc__)
    try:
        import fastapi  # noqa: F401
        import uvicorn
    except ImportError:
        raise MissingPartError(
            "facegpt serve needs fastapi and uvicorn; install them with pip install 'facegpt[serve]'"
        ) from None
    place = listen(settings.host, settings.port)  # before the model, which takes seconds
    with place:
        # Importing the language model's libraries takes seconds: the command line is judged before.
        from facegpt.chat import newest_checkpoint
        from facegpt.commands.chat_turns import open_model
        from facegpt.commands.serve_answers import Service
        from facegpt.commands.serve_app import make_app
        from facegpt.commands.serve_faces import FaceShelf
        from facegpt.commands.serve_queue import ModelQueue

        model, head = open_model(settings, newest_checkpoint(settings.checkpoint))
        service = Service(
            settings.name,
            ModelQueue(model, settings.batch_size, settings.queue),
            FaceShelf(head, settings.keep_faces),
            settings.max_new_tokens,
        )
        app = make_app(service, int(settings.max_body_mb * 1e6), settings.api_key)
        config = uvicorn.Config(
            app,
            log_level="warning",
            server_header=False,
            limit_concurrency=16 + 4 * settings.queue,  # connections, also those with their bodies unread
            timeout_graceful_shutdown=settings.drain_seconds,
        )
        host, port = place.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        if settings.api_key is None and not host.startswith(("127.", "::1")):
            print(f"anybody who reaches {shown} may ask; --api-key keeps others out", file=sys.stderr)
        print(f"facegpt serves at http://{shown}:{port}/v1, Ctrl-C ends it", flush=True)
        uvicorn.Server(config).run(sockets=[place])


def listen(host: str, port: int) -> socket.socket:
    """The socket, taken but not yet open. Raises ConfigError for an address that cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        place = socket.socket(family, kind, protocol)
        place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(address)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{host} port {port} cannot be listened on: {error}; choose others") from None
    return place
