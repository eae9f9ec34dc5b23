"""The Spatial Vision Aggregator (Cambrian-1, section 3.2), in the size of the released 8B model.

Parameters have the names that they have in `crates/connector`.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from protocol import Workload, activations, compile_if_faster, count, materialise
from serving import timed

HEADS = 16


@dataclass(frozen=True)
class Sizes:
    encoders: tuple[tuple[int, int], ...]
    """Feature width and grid side of each encoder."""
    width: int
    hidden: int
    """Width of the language model."""
    cells: int
    """Side of the grids of queries and of visual tokens."""
    depth: int
    in_llm: int = 0

    @property
    def windows(self) -> tuple[int, ...]:
        return tuple(side // self.cells for _, side in self.encoders)


# SigLIP, CLIP, DINOv2 and ConvNeXt; in-LLM layers are measured alone.
RELEASED = Sizes(((1152, 24), (1024, 24), (1536, 24), (5760, 96)), 1024, 4096, 24, 3)


class Mlp(nn.Module):
    def __init__(self, d_in: int, hidden: int, d_out: int, bias: bool):
        super().__init__()
        self.fc1 = nn.Linear(d_in, hidden, bias=bias)
        self.fc2 = nn.Linear(hidden, d_out, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class NormedLinear(nn.Module):
    def __init__(self, d: int):
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.linear = nn.Linear(d, d, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x))


class KeyValue(nn.Module):
    def __init__(self, d: int):
        super().__init__()
        self.key = NormedLinear(d)
        self.value = NormedLinear(d)


class Joint(nn.Module):
    """One softmax over the keys of all windows."""

    def __init__(self, d: int, encoders: int):
        super().__init__()
        self.query = NormedLinear(d)
        self.encoders = nn.ModuleList(KeyValue(d) for _ in range(encoders))
        self.out = nn.Linear(d, d, bias=False)

    def forward(self, x: Tensor, windows: list[Tensor]) -> Tensor:
        pairs = list(zip(self.encoders, windows, strict=True))
        keys = torch.cat([net.key(window) for net, window in pairs], dim=1)
        values = torch.cat([net.value(window) for net, window in pairs], dim=1)
        n, d = x.shape
        q, k, v = (
            part.view(n, -1, HEADS, d // HEADS).transpose(1, 2)
            for part in (self.query(x), keys, values)
        )
        return self.out(F.scaled_dot_product_attention(q, k, v).reshape(n, d))


class SamplerLayer(nn.Module):
    """Queries that look at their windows of all grids."""

    def __init__(self, query_width: int, sizes: Sizes):
        super().__init__()
        d = sizes.width
        self.sides = sizes.windows
        self.proj_context = nn.Linear(d, d, bias=False)
        self.proj_in = nn.Linear(query_width + d, d, bias=False)
        # One for each encoder that has more than one token in a window, under its number.
        self.pos_embed = nn.ParameterDict(
            {
                str(encoder): nn.Parameter(torch.zeros(side * side, d))
                for encoder, side in enumerate(self.sides)
                if side > 1
            }
        )
        self.aggregation = Joint(d, len(self.sides))
        self.norm = nn.LayerNorm(d)
        self.proj_out = Mlp(d, d, query_width, bias=False)

    def forward(self, queries: Tensor, context: Tensor, windows: list[Tensor]) -> Tensor:
        """`queries` is `[n, q]`, `context` `[p, d]` with p a divisor of n, each window `[n, k, d]`."""
        context = self.proj_context(context)
        context = context.repeat_interleave(len(queries) // len(context), dim=0)
        x = self.proj_in(torch.cat([queries, context], dim=1))
        windows = [
            window + self.pos_embed[str(encoder)] if side > 1 else window
            for encoder, (window, side) in enumerate(zip(windows, self.sides, strict=True))
        ]
        seen = self.aggregation(x, windows)
        return self.proj_out(self.norm(x + seen)) + queries


class Sampler(nn.Module):
    def __init__(self, query_width: int, sizes: Sizes, depth: int):
        super().__init__()
        self.layers = nn.ModuleList(SamplerLayer(query_width, sizes) for _ in range(depth))

    def forward(self, queries: Tensor, context: Tensor, windows: list[Tensor]) -> Tensor:
        for layer in self.layers:
            queries = layer(queries, context, windows)
        return queries


class EncoderProjector(nn.Module):
    def __init__(self, d_in: int, d: int):
        super().__init__()
        self.mlp = Mlp(d_in, d, d, bias=True)
        self.norm = nn.LayerNorm(d)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.mlp(x))


class Aggregator(nn.Module):
    def __init__(self, sizes: Sizes):
        super().__init__()
        d, hidden = sizes.width, sizes.hidden
        self.sizes = sizes
        self.encoders = nn.ModuleList(EncoderProjector(width, d) for width, _ in sizes.encoders)
        self.queries = nn.Parameter(torch.zeros(1, d))
        self.groups = nn.ModuleList([Sampler(d, sizes, sizes.depth)])
        self.projector = Mlp(d, hidden, hidden, bias=True)
        self.in_llm = nn.ModuleList(Sampler(hidden, sizes, 1) for _ in range(sizes.in_llm))

    def forward(self, features: list[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Visual tokens `[b, n, hidden]`, the context `[b, d]` and the windows that all look at."""
        cells = self.sizes.cells
        projected = [f(x) for f, x in zip(self.encoders, features, strict=True)]
        context = projected[0].mean(dim=1)
        windows = [
            windows_of(x, cells, side)
            for x, side in zip(projected, self.sizes.windows, strict=True)
        ]
        b = len(context)
        queries = self.queries.expand(b * cells * cells, -1)
        tokens = self.projector(self.groups[0](queries, context, windows))
        return tokens.view(b, cells * cells, -1), context, windows


def windows_of(features: Tensor, cells: int, side: int) -> Tensor:
    """`[b, (cells · side)², d]` to `[b · cells², side², d]`."""
    d = features.shape[-1]
    x = features.view(-1, cells, side, cells, side, d).transpose(2, 3)
    return x.reshape(-1, side * side, d)


def workload(name: str, dtype: torch.dtype, smoke: bool) -> Workload:
    sizes = RELEASED
    tokens = sizes.cells * sizes.cells
    if name == "sva":
        with torch.device("meta"):
            module = Aggregator(replace(sizes, depth=1) if smoke else sizes)
        sva = materialise(module, dtype)
        features = [activations(1, side * side, d, dtype=dtype) for d, side in sizes.encoders]
        compiled = compile_if_faster([sva], lambda: sva(features))
        return Workload(count(sva), 1.0, lambda: timed(lambda: sva(features)), compiled=compiled)
    with torch.device("meta"):
        module = SamplerLayer(sizes.hidden, sizes)
    layer = materialise(module, dtype)
    hidden = activations(tokens, sizes.hidden, dtype=dtype)
    context = activations(tokens, sizes.width, dtype=dtype)
    windows = [activations(tokens, side * side, sizes.width, dtype=dtype) for side in sizes.windows]
    compiled = compile_if_faster([layer], lambda: layer(hidden, context, windows))
    return Workload(
        count(layer),
        1.0,
        lambda: timed(lambda: layer(hidden, context, windows)),
        compiled=compiled,
    )
