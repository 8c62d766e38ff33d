"""The `facegpt` command: `facegpt VERB ...`, also `python -m facegpt VERB ...`."""

from __future__ import annotations

import importlib
import sys

VERBS = ("chat", "fit", "view", "doctor", "import-head", "convert")


def main(arguments: list[str] | None = None) -> int:
    """Run one verb; a stub until the command line is unified."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] not in VERBS:
        print(f"usage: facegpt {{{','.join(VERBS)}}} ...", file=sys.stderr)
        return 2
    verb = importlib.import_module(f"facegpt.commands.{words[0].replace('-', '_')}")
    return int(verb.main(words[1:]))


if __name__ == "__main__":
    sys.exit(main())
