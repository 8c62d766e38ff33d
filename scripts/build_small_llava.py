"""Assemble the small LLaVA, the backbone "small": `python scripts/build_small_llava.py`.

SmolLM2 and MediaPipe's landmark network, as `facegpt fetch small` put them into the cache, and the small
trained weights of `assets` become one LLaVA folder in Hugging Face layout (270 MB, about a minute). Loading
`model.backbone=small` does the same where the folder is not in the cache yet; this recipe is for a folder
elsewhere, or for other weights.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from facegpt.config import parse_config, run
from facegpt.files import file_size
from facegpt.model.small_llava import ASSETS, assemble_small_llava, small_llava_folder


@dataclass
class AssemblySettings:
    """out: folder to write, which is replaced; "" for the one in the cache (with other
    assets: outputs/small_llava). assets: folder of the trained
    weights (`facegpt/model/small_llava.py` names the files); "" for those that ship with the package.
    """

    out: str = ""
    assets: str = ""


def main(settings: AssemblySettings) -> None:
    started = time.perf_counter()
    if settings.out or settings.assets:
        folder = Path(settings.out or "outputs/small_llava")
        assemble_small_llava(folder, settings.assets or ASSETS)
    else:
        folder = small_llava_folder()
    megabytes = sum(file_size(file) or 0 for file in folder.iterdir()) / 1e6
    seconds = time.perf_counter() - started
    print(json.dumps({"folder": str(folder), "megabytes": round(megabytes), "seconds": round(seconds)}))


if __name__ == "__main__":
    sys.exit(run(lambda argv: main(parse_config(AssemblySettings, argv, __doc__))))
