"""The `facegpt` command: `facegpt VERB ...`, also `python -m facegpt VERB ...`."""

from __future__ import annotations

import difflib
import importlib
import sys

from facegpt import __version__
from facegpt.config import UsageError, run

VERBS = {
    "chat": "talk with a trained model, about a picture or without one",
    "demo": "talk with it in the browser: chat, 3D view, sliders, files",
    "serve": "answer over HTTP, as OpenAI's API does",
    "fit": "fit the head to one photograph, without any network",
    "view": "draw contact sheets of a head",
    "fetch": "get a real part, such as a language model, into the cache; without a name: list them",
    "doctor": "say which parts are on this machine, and what works without the others",
    "import-head": "make a head file of ours from ICT-FaceKit",
    "convert": "turn the face parameters of one head into another's",
    "merge": "add a checkpoint's LoRA to its backbone, into one model folder",
}
USAGE = "usage: facegpt VERB [key=value ...]\n\n" + "\n".join(
    f"  {verb:12} {about}" for verb, about in VERBS.items()
)


def main(argv: list[str]) -> int | None:
    """Run one verb; every verb is a module of `facegpt.commands`, which is imported when it is called."""
    verb, words = (argv[0], argv[1:]) if argv else ("", [])
    if verb in ("-h", "--help", "help"):
        print(f"{USAGE}\n\n`facegpt VERB --help` lists the keys of a verb, `facegpt --version` the version.")
        return 0
    if verb == "--version":
        print(f"facegpt {__version__}")
        return 0
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"the verbs are {', '.join(VERBS)}"
        raise UsageError(f"there is no verb '{verb[:60]}'; {hint}" if verb else f"a verb is missing; {hint}")
    module = importlib.import_module(f"facegpt.commands.{verb.replace('-', '_')}")
    return int(module.main(words) or 0)


def console() -> int:
    """The console script."""
    return run(main)


if __name__ == "__main__":
    sys.exit(console())
