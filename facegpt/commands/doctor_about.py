"""What the doctor says about each part: licence, what works without it, where to get it."""

from __future__ import annotations

from facegpt.parts import PARTS

WITHOUT = {  # fetched part -> what works without it
    "face_landmarker": "the tiny LLaVA, and photographs that come with landmarks; not the small LLaVA",
    "smollm2-135m": "the tiny LLaVA, whose language is a stand-in's; not the small LLaVA",
    "sface": "the perceptual loss, with the tiny recogniser, a stand-in",
}

# name -> licence, what works without it, where to get it
ABOUT = {
    "built-in head": ("MIT", "the heads of files (--head FILE)", "made by code on first use"),
    "head file": (
        "its own",
        "all recipes, on the built-in head, a stand-in",
        "FLAME 2023 Open: register at flame.is.tue.mpg.de; docs/heads.md tells more",
    ),
    "albedo": (
        "its head's",
        "geometry and landmarks; the face is plain skin, colours cannot be learnt",
        "FLAME_texture.npz beside FLAME's pickle, from flame.is.tue.mpg.de",
    ),
    "landmarks": (
        "its head's",
        "rendering and export; no training, fitting or landmark error",
        "landmark_embedding.npy (as in DECA and SMIRK) beside FLAME's pickle",
    ),
    "tiny recogniser": (
        "MIT",
        "all but the perceptual loss",
        "python scripts/pretrain_tiny_recognizer.py",
    ),
    "ArcFace": (
        "research",
        "the perceptual loss, with the tiny recogniser, a stand-in",
        "w600k_r50.onnx of insightface's buffalo_l, or arcface_torch's IResNet-50",
    ),
    "tiny LLaVA": (
        "MIT",
        "everything with another backbone; not `make demo`",
        "python scripts/pretrain_tiny_llava.py",
    ),
    "LLaVA": (
        "Llama-2",
        "all recipes, with the tiny LLaVA, a stand-in",
        "llava-hf/llava-1.5-7b-hf from the Hugging Face hub",
    ),
    **{name: (PARTS[name].license, without, f"facegpt fetch {name}") for name, without in WITHOUT.items()},
    "renderer torch": ("BSD-3", "nothing: it is the reference", "pip install torch"),
    "renderer numba": (
        "BSD-2",
        "everything; rendering on the CPU is several times slower",
        "pip install 'facegpt[fast]'",
    ),
    "renderer triton": (
        "MIT",
        "everything; on a GPU the torch renderer takes its place",
        "comes with torch for CUDA on Linux",
    ),
    "renderer pytorch3d": (
        "BSD-3",
        "everything; it is there to compare with",
        "build it from its sources: pytorch3d.org",
    ),
    "GPU": (
        "-",
        "everything with the tiny parts; a 7B backbone is too slow to train",
        "an NVIDIA GPU with its driver, and a torch built for CUDA",
    ),
    "DeepSpeed": (
        "Apache-2.0",
        "chat, fitting and evaluation; no training",
        "pip install --no-build-isolation deepspeed",
    ),
    "W&B": (
        "MIT",
        "everything; runs are logged to metrics.jsonl all the same",
        "pip install 'facegpt[wandb]'",
    ),
}
