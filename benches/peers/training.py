"""Steps of training: forward, backward, clipping by the global norm, AdamW.

Two networks, a decoder of 20 million parameters and a small multimodal model (SigLIP, ConvNeXt, SVA,
decoder), all of whose parameters train. They start from the weights that the other side has written
and see the same inputs, so the losses of the first steps must be the same. Parameters have the names
that they have in `crates/`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from connector import Aggregator, Sizes
from decoder import rotate
from encoders import Block, ConvBlock, ConvNext, Vit, VisionTransformer
from protocol import Workload, compile_if_faster, count
from serving import timed

LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.01
CLIP = 1.0
THETA = 10000.0
EPS = 1e-5


@dataclass(frozen=True)
class Llama:
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int
    tied: bool


ROWS, TOKENS = 8, 256
DECODER = Llama(384, 8, 6, 6, 1024, 8192, tied=False)
SMOKE_TOKENS = 32
SMOKE_DECODER = Llama(48, 2, 6, 6, 128, 8192, tied=False)

PICTURES, SMOKE_PICTURES = 16, 2
# Tokens before a picture and after it; those after it are trained.
BEFORE, AFTER = 8, 32
VIT = Vit(128, 6, 4, 512, side=128, trained_side=128, patch=16, activation="gelu_tanh", tokens=8)
CONVNEXT_DEPTHS, CONVNEXT_WIDTHS = (2, 2, 4, 2), (24, 48, 96, 192)
CONVNEXT_EPS = 1e-6
CONVNEXT_SIDE, CONVNEXT_TOKENS = 256, 32
SVA = Sizes(((128, 8), (360, 32)), 128, 192, 8, 2, in_llm=2)
# Decoder layers that an in-LLM layer follows.
IN_LLM = (0, 3)
SMALL_DECODER = Llama(192, 6, 6, 2, 512, 1536, tied=True)


class SelfAttention(nn.Module):
    def __init__(self, llama: Llama):
        super().__init__()
        d, self.head_dim = llama.hidden, llama.hidden // llama.heads
        self.groups = llama.heads // llama.kv_heads
        self.q_proj = nn.Linear(d, llama.heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(d, llama.kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(d, llama.kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(llama.heads * self.head_dim, d, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = (
            f(x).view(b, t, -1, self.head_dim).transpose(1, 2)
            for f in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        if self.groups > 1:
            k, v = (part.repeat_interleave(self.groups, dim=1) for part in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(b, t, d))


class GatedMlp(nn.Module):
    def __init__(self, llama: Llama):
        super().__init__()
        self.gate_proj = nn.Linear(llama.hidden, llama.intermediate, bias=False)
        self.up_proj = nn.Linear(llama.hidden, llama.intermediate, bias=False)
        self.down_proj = nn.Linear(llama.intermediate, llama.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    def __init__(self, llama: Llama):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(llama.hidden, eps=EPS)
        self.self_attn = SelfAttention(llama)
        self.post_attention_layernorm = nn.RMSNorm(llama.hidden, eps=EPS)
        self.mlp = GatedMlp(llama)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    def __init__(self, llama: Llama):
        super().__init__()
        self.head_dim = llama.hidden // llama.heads
        self.embed_tokens = nn.Embedding(llama.vocab, llama.hidden)
        self.layers = nn.ModuleList(DecoderLayer(llama) for _ in range(llama.layers))
        self.norm = nn.RMSNorm(llama.hidden, eps=EPS)
        self.lm_head = None if llama.tied else nn.Linear(llama.hidden, llama.vocab, bias=False)

    def forward(self, x: Tensor, after: Callable[[int, Tensor], Tensor] | None = None) -> Tensor:
        """Embeddings `[b, t, d]` to hidden states; `after` may change what a layer put out."""
        frequencies = THETA ** -(torch.arange(0, self.head_dim, 2) / self.head_dim)
        angles = torch.outer(torch.arange(x.shape[1]), frequencies)
        angles = torch.cat([angles, angles], dim=-1)
        cos, sin = angles.cos(), angles.sin()
        for index, layer in enumerate(self.layers):
            x = layer(x, cos, sin)
            if after is not None:
                x = after(index, x)
        return self.norm(x)

    def loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Mean cross entropy of hidden states `[b, t, d]` against the tokens that follow them."""
        head = self.embed_tokens if self.lm_head is None else self.lm_head
        logits = F.linear(hidden.flatten(0, 1), head.weight)
        return F.cross_entropy(logits, targets.flatten())


class Connector(Aggregator):
    def __init__(self, sizes: Sizes):
        super().__init__(sizes)
        self.newline = nn.Parameter(torch.zeros(sizes.hidden))


class SmallCambrian(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        convnext = ConvNext(CONVNEXT_DEPTHS, CONVNEXT_WIDTHS, CONVNEXT_EPS, CONVNEXT_TOKENS)
        self.encoders = nn.ModuleList([VisionTransformer(VIT), convnext])
        self.connector = Connector(SVA)
        self.decoder = Decoder(SMALL_DECODER)
        cells = torch.arange(SVA.cells)
        # Slots of the visual tokens: each row of them ends with another token.
        self.slots = (BEFORE + cells[:, None] * (SVA.cells + 1) + cells).flatten()

    def loss(self, ids: Tensor, pixels: list[Tensor]) -> Tensor:
        """`ids` is `[b, BEFORE + AFTER]`, the pictures stand between."""
        features = [encoder(x) for encoder, x in zip(self.encoders, pixels, strict=True)]
        tokens, context, windows = self.connector(features)
        b, cells, d = len(ids), SVA.cells, SVA.hidden
        newline = self.connector.newline.expand(b, cells, 1, d)
        visual = torch.cat([tokens.view(b, cells, cells, d), newline], dim=2).flatten(1, 2)
        text = self.decoder.embed_tokens(ids)
        x = torch.cat([text[:, :BEFORE], visual, text[:, BEFORE:]], dim=1)

        def look_again(layer: int, x: Tensor) -> Tensor:
            if layer not in IN_LLM:
                return x
            sampler = self.connector.in_llm[IN_LLM.index(layer)]
            queries = x[:, self.slots].flatten(0, 1)
            changed = sampler(queries, context, windows).view(b, -1, d)
            return x.index_copy(1, self.slots, changed)

        hidden = self.decoder(x, look_again)
        first = x.shape[1] - AFTER
        return self.decoder.loss(hidden[:, first - 1 : -1], ids[:, BEFORE:])


# Parts that are compiled where it helps.
COMPILED = (Block, ConvBlock, DecoderLayer)


class Trainer:
    """A network, its loss on inputs that stay the same, and its optimizer."""

    def __init__(self, module: nn.Module, loss: Callable[[], Tensor]):
        self.module, self.loss = module, loss
        self.parameters = list(module.parameters())
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
        )

    def step(self) -> float:
        """Returns the loss before the step."""
        loss = self.loss()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, CLIP, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def workload(self, amount: int) -> Workload:
        losses = (self.step(), self.step())
        parts = [m for m in self.module.modules() if isinstance(m, COMPILED)]
        compiled = compile_if_faster(parts, self.step, train=True)
        return Workload(
            count(self.module), float(amount), lambda: timed(self.step), losses, compiled
        )


def text(rows: int, tokens: int, vocab: int) -> Tensor:
    return (torch.arange(rows * tokens) * 31 % vocab).view(rows, tokens)


def pictures(count: int, side: int) -> Tensor:
    """Numbers between -1 and 1, another pattern for every picture."""
    i, picture = torch.arange(3 * side * side), torch.arange(count)
    values = (picture[:, None] * 97 + i * 37) % 255 / 127.5 - 1.0
    return values.view(count, 3, side, side)


def decoder(smoke: bool, weights: str) -> Workload:
    llama, tokens = (SMOKE_DECODER, SMOKE_TOKENS) if smoke else (DECODER, TOKENS)
    module = Decoder(llama)
    module.load_state_dict(load_file(weights))
    ids = text(ROWS, tokens, llama.vocab)

    def loss() -> Tensor:
        hidden = module(module.embed_tokens(ids))
        return module.loss(hidden[:, :-1], ids[:, 1:])

    return Trainer(module, loss).workload(ids.numel())


def small_cambrian(smoke: bool, weights: str) -> Workload:
    module = SmallCambrian()
    module.load_state_dict(load_file(weights))
    module.encoders[1].to(memory_format=torch.channels_last)
    b = SMOKE_PICTURES if smoke else PICTURES
    ids = text(b, BEFORE + AFTER, SMALL_DECODER.vocab)
    planes = pictures(b, CONVNEXT_SIDE).to(memory_format=torch.channels_last)
    pixels = [pictures(b, VIT.side), planes]
    return Trainer(module, lambda: module.loss(ids, pixels)).workload(b)


def workload(name: str, smoke: bool, weights: str) -> Workload:
    match name:
        case "decoder":
            return decoder(smoke, weights)
        case "sva":
            return small_cambrian(smoke, weights)
    raise SystemExit(f"there is no training workload `{name}` to compare with")
