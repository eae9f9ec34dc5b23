"""What the workloads of PyTorch share."""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn

import serving

SOON = 3.0
"""Seconds of a pass that is worth repeating before it is compared."""


@dataclass
class Workload:
    """Something that can be run again and again."""

    parameters: int
    """Numbers in all parameters: two sides that disagree do not run the same network."""
    amount: float
    """Work of one pass: pictures, tokens or bytes."""
    run: Callable[[], float]
    """One pass; returns its seconds."""
    losses: tuple[float, ...] = ()
    """Of the first steps of training, from the weights that the other side has too."""
    compiled: bool = False
    """Whether parts of it are compiled."""


def serve(workload: Workload) -> None:
    """Warms up, then runs a pass for every line of input."""
    with torch.inference_mode(not workload.losses):
        about = f"PyTorch {torch.__version__}"
        serving.serve(
            about,
            workload.parameters,
            workload.amount,
            workload.run,
            workload.losses,
            workload.compiled,
        )


def materialise(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Gives a module made on the `meta` device ordinary random weights in `dtype`.

    Nothing is ever allocated in another format, so that the peak is that of the network.
    """
    module = module.to(dtype).to_empty(device="cpu").eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim >= 2:
                bound = parameter[0].numel() ** -0.5
                parameter.uniform_(-bound, bound)
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
    return module


def compile_if_faster(
    parts: Iterable[nn.Module],
    run: Callable[[], object],
    *,
    shapes_change: bool = False,
    train: bool = False,
) -> bool:
    """Compiles parts of a network (`torch.compile`) if what they are parts of runs faster so.

    Parts with the same code are compiled once. Returns whether they are compiled now.
    """

    def best() -> float:
        run()
        seconds = serving.timed(run)
        return min(seconds, serving.timed(run)) if seconds < SOON else seconds

    parts = list(parts)
    with torch.inference_mode(not train):
        plain = best()
        try:
            for part in parts:
                part.compile(dynamic=None if shapes_change else False)
            compiled = best()
        except Exception as error:  # noqa: BLE001: whatever the compiler has to say, it is not compiled.
            print(f"not compiled: {error}", file=sys.stderr)
            compiled = float("inf")
        if compiled < plain:
            return True
        for part in parts:
            part._compiled_call_impl = None  # noqa: SLF001: there is no public way back.
    return False


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def activations(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    """Activations in the range of normalised ones."""
    return torch.empty(shape, dtype=dtype).uniform_(-1.0, 1.0)
