"""`facegpt demo`: how the page is served - to whom it is told, and with nothing from anywhere else."""

from __future__ import annotations

from typing import Any

import gradio as gr

from facegpt.commands.demo_style import CSS, THEME

# A browser that obeys this asks no other host for anything. gradio's scripts stand within its page, and
# its 3D view compiles shaders and decoders from strings and blobs.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; frame-ancestors 'self'"
)


class OnlyFromHere:
    """ASGI middleware: answers carry `POLICY`, and nothing is fetched from other hosts for a client."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if "/file=http" in scope["path"]:  # gradio would fetch the address and hand it on
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b"only files of the demo are served"})
            return

        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"content-security-policy", POLICY.encode())]
                message = message | {"headers": headers}
            await send(message)

        await self.app(scope, receive, send_with_policy)


def launch(page: gr.Blocks, host: str, port: int, login: tuple[str, str] | None, max_upload: int) -> None:
    """Serve the page from a thread. max_upload: megabytes. Raises OSError where the port cannot be had."""
    from starlette.middleware import Middleware

    page.launch(
        server_name=host,
        server_port=port,
        auth=login,
        max_file_size=f"{max_upload}mb",
        app_kwargs={"middleware": [Middleware(OnlyFromHere)]},
        theme=THEME,
        css=CSS,
        footer_links=[],
        share=False,
        ssr_mode=False,
        enable_monitoring=False,
        quiet=True,
        prevent_thread_lock=True,
    )
