"""A language model of the shape of Llama-3 8B.

All 32 layers are the same, so `LAYERS` of them are timed and stand for all; the output head is there
once and timed apart: `seconds = layers * 32 / LAYERS + head`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llama3_8b import (
    ALL_LAYERS,
    ANSWER,
    EPS,
    HEAD_DIM,
    HEADS,
    HIDDEN,
    INTERMEDIATE,
    KV_HEADS,
    LAYERS,
    PROMPT,
    THETA,
    VOCAB,
)
from protocol import Workload, activations, compile_if_faster, count, materialise
from serving import timed


class Layer(nn.Module):
    """Grouped-query attention and a gated feed-forward layer, with a cache of fixed size."""

    def __init__(self) -> None:
        super().__init__()
        self.input_norm = nn.RMSNorm(HIDDEN, eps=EPS)
        self.q_proj = nn.Linear(HIDDEN, HEADS * HEAD_DIM, bias=False)
        self.k_proj = nn.Linear(HIDDEN, KV_HEADS * HEAD_DIM, bias=False)
        self.v_proj = nn.Linear(HIDDEN, KV_HEADS * HEAD_DIM, bias=False)
        self.o_proj = nn.Linear(HEADS * HEAD_DIM, HIDDEN, bias=False)
        self.post_norm = nn.RMSNorm(HIDDEN, eps=EPS)
        self.gate_proj = nn.Linear(HIDDEN, INTERMEDIATE, bias=False)
        self.up_proj = nn.Linear(HIDDEN, INTERMEDIATE, bias=False)
        self.down_proj = nn.Linear(INTERMEDIATE, HIDDEN, bias=False)

    def forward(self, x: Tensor, start: int, cos: Tensor, sin: Tensor, cache: Tensor) -> Tensor:
        """`x` is `[1, t, HIDDEN]`; `cache` `[2, 1, KV_HEADS, slots, HEAD_DIM]`, filled to `start`."""
        x = x + self.attend(self.input_norm(x), start, cos, sin, cache)
        y = self.post_norm(x)
        return x + self.down_proj(F.silu(self.gate_proj(y)) * self.up_proj(y))

    def attend(self, x: Tensor, start: int, cos: Tensor, sin: Tensor, cache: Tensor) -> Tensor:
        t = x.shape[1]
        q, k, v = (
            f(x).view(1, t, -1, HEAD_DIM).transpose(1, 2)
            for f in (self.q_proj, self.k_proj, self.v_proj)
        )
        cache[0, :, :, start : start + t] = rotate(k, cos, sin)
        cache[1, :, :, start : start + t] = v
        keys, values = cache[:, :, :, : start + t]
        y = F.scaled_dot_product_attention(
            rotate(q, cos, sin), keys, values, is_causal=t > 1, enable_gqa=True
        )
        return self.o_proj(y.transpose(1, 2).reshape(1, t, HEADS * HEAD_DIM))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


class Model(nn.Module):
    def __init__(self, layers: int, vocab: int):
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(layers))
        self.norm = nn.RMSNorm(HIDDEN, eps=EPS)
        self.head = nn.Linear(HIDDEN, vocab, bias=False)


class Runner:
    """A model, its prompt and its cache."""

    def __init__(self, dtype: torch.dtype, smoke: bool):
        layers, vocab = (1, 1024) if smoke else (LAYERS, VOCAB)
        self.prompt_len = PROMPT // 10 if smoke else PROMPT
        with torch.device("meta"):
            module = Model(layers, vocab)
        self.model = materialise(module, dtype)
        self.prompt = activations(1, self.prompt_len, HIDDEN, dtype=dtype)
        slots = self.prompt_len + ANSWER
        self.cache = torch.zeros(layers, 2, 1, KV_HEADS, slots, HEAD_DIM, dtype=dtype)
        frequencies = THETA ** -(torch.arange(0, HEAD_DIM, 2, dtype=torch.float32) / HEAD_DIM)
        angles = torch.outer(torch.arange(slots, dtype=torch.float32), frequencies)
        angles = torch.cat([angles, angles], dim=-1)
        self.cos, self.sin = angles.cos().to(dtype), angles.sin().to(dtype)

    def layers(self, x: Tensor, start: int) -> Tensor:
        positions = slice(start, start + x.shape[1])
        cos, sin = self.cos[positions], self.sin[positions]
        for layer, cache in zip(self.model.layers, self.cache, strict=True):
            x = layer(x, start, cos, sin, cache)
        return self.model.norm(x)

    def run(self, x: Tensor, start: int) -> float:
        """Runs embeddings and the head on the last of them; the seconds of the whole model."""
        hidden = x

        def run_layers() -> None:
            nonlocal hidden
            hidden = self.layers(x, start)

        layers = timed(run_layers)
        head = timed(lambda: self.model.head(hidden[:, -1]))
        return layers * ALL_LAYERS / len(self.model.layers) + head

    def prefill(self) -> float:
        return self.run(self.prompt, 0)

    def decode(self) -> float:
        token = self.prompt[:, :1]
        return sum(self.run(token, self.prompt_len + i) for i in range(ANSWER))


def workload(name: str, dtype: torch.dtype, smoke: bool) -> Workload:
    runner = Runner(dtype, smoke)
    parameters = count(runner.model)
    if name == "prefill":
        compiled = compile_if_faster(runner.model.layers, runner.prefill)
        return Workload(parameters, float(runner.prompt_len), runner.prefill, compiled=compiled)
    with torch.inference_mode():
        runner.prefill()
    compiled = compile_if_faster(runner.model.layers, runner.decode, shapes_change=True)
    return Workload(parameters, float(ANSWER), runner.decode, compiled=compiled)
