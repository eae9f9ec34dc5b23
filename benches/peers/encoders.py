"""The four vision encoders of the released Cambrian-1 models, in their published sizes.

Written from their papers' architectures for speed comparisons: `scaled_dot_product_attention`, one
matrix product for queries, keys and values, channels-last convolutions.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from protocol import Workload, activations, compile_if_faster, count, materialise
from serving import timed


VIT_TOKENS = 24


@dataclass
class Vit:
    width: int
    layers: int
    heads: int
    hidden: int
    side: int
    """Pixels of a picture."""
    trained_side: int
    """Pixels for which the position table was made."""
    patch: int = 14
    activation: str = "gelu"
    patch_bias: bool = True
    class_token: bool = False
    pre_norm: bool = False
    final_norm: bool = True
    gated: bool = False
    layer_scale: bool = False
    tokens: int = VIT_TOKENS
    """Side of the grid that the features are resampled to."""


# CLIP's features are the output of the last block but one, so 23 of 24 blocks are run.
VITS = {
    "siglip": Vit(1152, 27, 16, 4304, side=384, trained_side=384),
    "clip": Vit(1024, 23, 16, 4096, side=336, trained_side=336, activation="quick_gelu",
                patch_bias=False, class_token=True, pre_norm=True, final_norm=False),
    "dinov2": Vit(1536, 40, 24, 4096, side=378, trained_side=518, class_token=True, gated=True,
                  layer_scale=True),
}  # fmt: skip
# Blocks that the smoke test leaves.
SMOKE_LAYERS = {"siglip": 2, "clip": 1, "dinov2": 2}

CONVNEXT_DEPTHS = (3, 4, 30, 3)
CONVNEXT_WIDTHS = (384, 768, 1536, 3072)
CONVNEXT_EPS = 1e-5
CONVNEXT_SIDE = 1024
CONVNEXT_TOKENS = 96


class Attention(nn.Module):
    def __init__(self, d: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(d, 3 * d)
        self.out = nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        b, t, d = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(b, t, d))


ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
}


class Mlp(nn.Module):
    def __init__(self, d: int, hidden: int, activation: str):
        super().__init__()
        self.fc1 = nn.Linear(d, hidden)
        self.fc2 = nn.Linear(hidden, d)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(ACTIVATIONS[self.activation](self.fc1(x)))


class GatedMlp(nn.Module):
    def __init__(self, d: int, hidden: int):
        super().__init__()
        self.weights_in = nn.Linear(d, 2 * hidden)
        self.weights_out = nn.Linear(hidden, d)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.weights_in(x).chunk(2, dim=-1)
        return self.weights_out(F.silu(gate) * up)


class Block(nn.Module):
    def __init__(self, vit: Vit):
        super().__init__()
        d = vit.width
        self.norm1 = nn.LayerNorm(d, eps=1e-6)
        self.attn = Attention(d, vit.heads)
        self.norm2 = nn.LayerNorm(d, eps=1e-6)
        self.mlp = GatedMlp(d, vit.hidden) if vit.gated else Mlp(d, vit.hidden, vit.activation)
        self.scale1 = nn.Parameter(torch.ones(d)) if vit.layer_scale else None
        self.scale2 = nn.Parameter(torch.ones(d)) if vit.layer_scale else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.attn(self.norm1(x))
        x = x + (y if self.scale1 is None else y * self.scale1)
        y = self.mlp(self.norm2(x))
        return x + (y if self.scale2 is None else y * self.scale2)


class VisionTransformer(nn.Module):
    def __init__(self, vit: Vit):
        super().__init__()
        self.vit = vit
        d, cells = vit.width, (vit.trained_side // vit.patch) ** 2
        self.patch = nn.Conv2d(3, d, vit.patch, vit.patch, bias=vit.patch_bias)
        self.class_token = nn.Parameter(torch.zeros(1, 1, d)) if vit.class_token else None
        self.position = nn.Parameter(torch.zeros(1, cells + vit.class_token, d))
        self.pre_norm = nn.LayerNorm(d, eps=1e-5) if vit.pre_norm else None
        self.blocks = nn.ModuleList(Block(vit) for _ in range(vit.layers))
        self.norm = nn.LayerNorm(d, eps=1e-6) if vit.final_norm else None

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.patch(pixels).flatten(2).transpose(1, 2)
        if self.class_token is not None:
            x = torch.cat([self.class_token, x], dim=1)
        x = x + self.positions()
        if self.pre_norm is not None:
            x = self.pre_norm(x)
        for block in self.blocks:
            x = block(x)
        if self.norm is not None:
            x = self.norm(x)
        x = x[:, 1:] if self.class_token is not None else x
        side = self.vit.side // self.vit.patch
        return resample(x.transpose(1, 2).unflatten(2, (side, side)), self.vit.tokens)

    def positions(self) -> Tensor:
        """The position table, resampled where the picture has another side than in training."""
        trained, side = (n // self.vit.patch for n in (self.vit.trained_side, self.vit.side))
        if trained == side:
            return self.position
        first, cells = self.position[:, :1], self.position[:, 1:]
        planes = cells.transpose(1, 2).unflatten(2, (trained, trained)).float()
        planes = F.interpolate(planes, size=(side, side), mode="bicubic", align_corners=False)
        return torch.cat([first, planes.flatten(2).transpose(1, 2).to(first.dtype)], dim=1)


def resample(planes: Tensor, side: int) -> Tensor:
    """`[b, d, r, c]` to `[b, side², d]`."""
    if planes.shape[-1] != side:
        planes = F.interpolate(planes, size=(side, side), mode="bilinear", align_corners=False)
    return planes.flatten(2).transpose(1, 2)


class ConvBlock(nn.Module):
    def __init__(self, d: int, eps: float):
        super().__init__()
        self.conv_dw = nn.Conv2d(d, d, 7, padding=3, groups=d)
        self.norm = nn.LayerNorm(d, eps=eps)
        self.mlp = Mlp(d, 4 * d, "gelu")
        self.gamma = nn.Parameter(torch.ones(d))

    def forward(self, x: Tensor) -> Tensor:
        # With channels last in memory the permutations move nothing.
        y = self.conv_dw(x).permute(0, 2, 3, 1)
        y = self.mlp(self.norm(y)) * self.gamma
        return x + y.permute(0, 3, 1, 2)


class ChannelNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Stem(nn.Module):
    def __init__(self, d: int, eps: float):
        super().__init__()
        self.conv = nn.Conv2d(3, d, 4, 4)
        self.norm = ChannelNorm(d, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Downsample(nn.Module):
    def __init__(self, before: int, d: int, eps: float):
        super().__init__()
        self.norm = ChannelNorm(before, eps=eps)
        self.conv = nn.Conv2d(before, d, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(x))


class Stage(nn.Module):
    def __init__(self, before: int | None, d: int, depth: int, eps: float):
        super().__init__()
        self.downsample = None if before is None else Downsample(before, d, eps)
        self.blocks = nn.ModuleList(ConvBlock(d, eps) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        if self.downsample is not None:
            x = self.downsample(x)
        for block in self.blocks:
            x = block(x)
        return x


class ConvNext(nn.Module):
    """All four stages, each resampled to the token grid, one beside the other."""

    def __init__(self, depths: tuple[int, ...], widths: tuple[int, ...], eps: float, tokens: int):
        super().__init__()
        self.tokens = tokens
        self.stem = Stem(widths[0], eps)
        stages = zip((None, *widths), widths, depths, strict=False)
        self.stages = nn.ModuleList(Stage(before, d, depth, eps) for before, d, depth in stages)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        outputs = []
        for stage in self.stages:
            x = stage(x)
            outputs.append(resample(x, self.tokens))
        return torch.cat(outputs, dim=-1)


def build(name: str, smoke: bool) -> tuple[nn.Module, int]:
    """An encoder without weights, and the side of its pictures."""
    with torch.device("meta"):
        if name == "convnext":
            depths = (1, 1, 1, 1) if smoke else CONVNEXT_DEPTHS
            network = ConvNext(depths, CONVNEXT_WIDTHS, CONVNEXT_EPS, CONVNEXT_TOKENS)
            return network, CONVNEXT_SIDE
        vit = VITS[name]
        if smoke:
            vit.layers = SMOKE_LAYERS[name]
        return VisionTransformer(vit), vit.side


def workload(name: str, dtype: torch.dtype, smoke: bool) -> Workload:
    module, side = build(name, smoke)
    encoder = materialise(module, dtype)
    pixels = activations(1, 3, side, side, dtype=dtype)
    if name == "convnext":
        encoder = encoder.to(memory_format=torch.channels_last)
        pixels = pixels.to(memory_format=torch.channels_last)
    parts = [m for m in encoder.modules() if isinstance(m, (Block, ConvBlock))]
    compiled = compile_if_faster(parts, lambda: encoder(pixels))
    return Workload(
        count(encoder), 1.0, lambda: timed(lambda: encoder(pixels)), compiled=compiled
    )
