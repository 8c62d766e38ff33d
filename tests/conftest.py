"""Before any test module: without a GPU triton's kernels run through its interpreter, on the CPU.

triton looks at this variable when it is first imported, and transformers imports it.
"""

import os

import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
