"""The Spatial Vision Aggregator (Cambrian-1, section 3.2) in the size of the released 8B model."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from protocol import Workload, activations, count, materialise, timed

# Feature width and grid side of SigLIP, CLIP, DINOv2 and ConvNeXt.
ENCODERS = ((1152, 24), (1024, 24), (1536, 24), (5760, 96))
WIDTH = 1024
HIDDEN = 4096
CELLS = 24
DEPTH = 3
HEADS = 16
WINDOWS = tuple(side // CELLS for _, side in ENCODERS)


def mlp(d_in: int, hidden: int, d_out: int, bias: bool) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(d_in, hidden, bias=bias), nn.GELU(), nn.Linear(hidden, d_out, bias=bias)
    )


def normed() -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH, bias=False))


class SamplerLayer(nn.Module):
    """Queries that look at their windows of all grids with one softmax."""

    def __init__(self, query_width: int):
        super().__init__()
        self.proj_context = nn.Linear(WIDTH, WIDTH, bias=False)
        self.proj_in = nn.Linear(query_width + WIDTH, WIDTH, bias=False)
        self.pos_embed = nn.ParameterList(
            nn.Parameter(torch.zeros(side * side, WIDTH)) for side in WINDOWS if side > 1
        )
        self.query = normed()
        self.keys = nn.ModuleList(normed() for _ in WINDOWS)
        self.values = nn.ModuleList(normed() for _ in WINDOWS)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.norm = nn.LayerNorm(WIDTH)
        self.proj_out = mlp(WIDTH, WIDTH, query_width, bias=False)

    def forward(self, queries: Tensor, context: Tensor, windows: list[Tensor]) -> Tensor:
        """`queries` is `[n, q]`, `context` `[n, WIDTH]`, each window `[n, k, WIDTH]`."""
        x = self.proj_in(torch.cat([queries, self.proj_context(context)], dim=1))
        positions = iter(self.pos_embed)
        windows = [
            window + next(positions) if side > 1 else window
            for window, side in zip(windows, WINDOWS, strict=True)
        ]
        keys = torch.cat([f(w) for f, w in zip(self.keys, windows, strict=True)], dim=1)
        values = torch.cat([f(w) for f, w in zip(self.values, windows, strict=True)], dim=1)
        seen = self.out(self.look(self.query(x), keys, values))
        return self.proj_out(self.norm(x + seen)) + queries

    @staticmethod
    def look(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        n = q.shape[0]
        q, k, v = (x.view(n, -1, HEADS, WIDTH // HEADS).transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v).reshape(n, WIDTH)


class Aggregator(nn.Module):
    def __init__(self, depth: int):
        super().__init__()
        self.encoders = nn.ModuleList(
            nn.Sequential(*mlp(d, WIDTH, WIDTH, bias=True), nn.LayerNorm(WIDTH))
            for d, _ in ENCODERS
        )
        self.queries = nn.Parameter(torch.zeros(1, WIDTH))
        self.layers = nn.ModuleList(SamplerLayer(WIDTH) for _ in range(depth))
        self.projector = mlp(WIDTH, HIDDEN, HIDDEN, bias=True)

    def forward(self, features: list[Tensor]) -> Tensor:
        projected = [f(x) for f, x in zip(self.encoders, features, strict=True)]
        n = CELLS * CELLS
        context = projected[0].mean(dim=1).expand(n, WIDTH)
        windows = [windows_of(x, side) for x, side in zip(projected, WINDOWS, strict=True)]
        queries = self.queries.expand(n, WIDTH)
        for layer in self.layers:
            queries = layer(queries, context, windows)
        return self.projector(queries)


def windows_of(features: Tensor, side: int) -> Tensor:
    """`[1, (CELLS · side)², d]` to `[CELLS², side², d]`."""
    d = features.shape[-1]
    x = features.view(CELLS, side, CELLS, side, d).transpose(1, 2)
    return x.reshape(CELLS * CELLS, side * side, d)


def workload(name: str, dtype: torch.dtype, smoke: bool) -> Workload:
    tokens = CELLS * CELLS
    if name == "sva":
        with torch.device("meta"):
            module = Aggregator(1 if smoke else DEPTH)
        sva = materialise(module, dtype)
        features = [activations(1, side * side, d, dtype=dtype) for d, side in ENCODERS]
        return Workload(count(sva), 1.0, lambda: timed(lambda: sva(features)))
    with torch.device("meta"):
        module = SamplerLayer(HIDDEN)
    layer = materialise(module, dtype)
    hidden = activations(tokens, HIDDEN, dtype=dtype)
    context = activations(tokens, WIDTH, dtype=dtype)
    windows = [activations(tokens, side * side, WIDTH, dtype=dtype) for side in WINDOWS]
    return Workload(count(layer), 1.0, lambda: timed(lambda: layer(hidden, context, windows)))
