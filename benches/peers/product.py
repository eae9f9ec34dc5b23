"""One product of a linear layer: activations in, activations out.

As `xtask/examples/measure/product.rs`: a pass repeats it for a quarter of a second, the fastest counts.
"""

import itertools
import time

import torch
import torch.nn.functional as F

from protocol import Workload, activations
from serving import timed

SHAPES = {
    "vit": (577, 4096, 1024),
    "vit-back": (577, 1024, 4096),
    "convnext": (4096, 1536, 384),
    "decoder": (700, 14336, 4096),
    "token": (1, 14336, 4096),
}
UNCACHED = 1 << 30
PATIENCE = 0.25


def workload(name: str, dtype: torch.dtype, smoke: bool) -> Workload:
    rows, outputs, inputs = SHAPES[name]
    shrink = 8 if smoke else 1
    outputs, inputs = outputs // shrink, inputs // shrink
    copies = max(UNCACHED // shrink // (outputs * inputs * 4), 2) if rows == 1 else 1
    weights = [activations(outputs, inputs, dtype=dtype) for _ in range(copies)]
    x = activations(rows, inputs, dtype=dtype)

    def run() -> float:
        start, best = time.perf_counter(), float("inf")
        for weight in itertools.cycle(weights):
            best = min(best, timed(lambda: F.linear(x, weight)))
            if time.perf_counter() - start > PATIENCE:
                return best
        return best

    return Workload(outputs * inputs, 2.0 * rows * outputs * inputs, run)
