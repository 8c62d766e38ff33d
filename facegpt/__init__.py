"""facegpt: a vision-language model that speaks in 3D faces.

    from facegpt import ChatSession, FaceGPT, HeadModel, export_mesh
    model, head = FaceGPT.from_pretrained(), HeadModel.builtin()
    turn = ChatSession(model).say("Show me the face of a man who laughs out loud.")
    print(turn.text)
    export_mesh(head.mesh(turn.faces[0]), "face.glb")

These names are looked up when they are first used, so that importing facegpt alone costs nothing.
"""

from importlib import import_module
from typing import Any

__version__ = "0.2.0"

_HOMES = {
    "ChatSession": "facegpt.chat",
    "FaceGPT": "facegpt.model.facegpt",
    "FaceParameters": "facegpt.head.parameters",
    "HeadModel": "facegpt.head.model",
    "export_mesh": "facegpt.export.mesh_io",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'facegpt' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
