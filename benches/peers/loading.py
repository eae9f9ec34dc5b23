"""A bf16 checkpoint from the page cache into tensors, as `safetensors` loads it.

A pass ends with reading one number of every memory page: what it takes until the weights can be
used, not until they are promised.
"""

import os

import torch
from safetensors.torch import load_file

from protocol import Workload
from serving import timed

# Numbers of bf16 in a memory page of 4 KiB.
PAGE = 2048


def workload(path: str, dtype: torch.dtype) -> Workload:
    def load() -> None:
        # Each tensor is let go as soon as it is converted.
        tensors = load_file(path)
        for name in list(tensors):
            tensors[name] = tensors[name].to(dtype)
            tensors[name].flatten()[::PAGE].sum()

    parameters = sum(tensor.numel() for tensor in load_file(path).values())
    return Workload(parameters, float(os.path.getsize(path)), lambda: timed(load))
