"""The PyTorch side of `cargo xtask bench`: one workload in one process.

Takes the same arguments as `xtask/examples/measure` and speaks its protocol.
"""

import argparse

import torch

import connector
import decoder
import encoders
import loading
import product
import question
import training
from protocol import Workload, serve

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def build(arguments: argparse.Namespace) -> Workload:
    dtype = DTYPES[arguments.dtype]
    kind, _, name = arguments.workload.partition("/")
    match kind:
        case "encoder":
            return encoders.workload(name, dtype, arguments.smoke)
        case "connector":
            return connector.workload(name, dtype, arguments.smoke)
        case "llm":
            return decoder.workload(name, dtype, arguments.smoke)
        case "question":
            return question.workload(dtype, arguments.smoke)
        case "product":
            return product.workload(name, dtype, arguments.smoke)
        case "training":
            return training.workload(name, arguments.smoke, arguments.checkpoint)
        case "load":
            return loading.workload(arguments.checkpoint, dtype)
    raise SystemExit(f"there is no workload `{arguments.workload}`")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", help="which workload, such as encoder/clip")
    parser.add_argument("--dtype", choices=DTYPES, default="f32", help="of weights and activations")
    parser.add_argument("--smoke", action="store_true", help="networks of a few layers")
    parser.add_argument("--checkpoint", help="the checkpoint that `load` reads, or the weights that training starts from")
    arguments = parser.parse_args()
    serve(build(arguments))


if __name__ == "__main__":
    main()
