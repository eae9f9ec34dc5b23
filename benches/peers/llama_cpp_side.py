"""The llama.cpp side of `cargo xtask bench`: one workload in one process.

Takes the same arguments as `xtask/examples/measure` and speaks its protocol. A model of the shape of
Llama-3 8B with random weights is written as a GGUF file, run, and removed. llama.cpp cannot time layers and
head apart, so all 32 layers are there.
"""

import argparse
import ctypes
import os
from pathlib import Path

import llama_cpp as llama
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter

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
from serving import serve, timed

BLOCK = 32
"""Weights that share a scale."""
FORMATS = {
    "int8": (GGMLQuantizationType.Q8_0, BLOCK),
    "int4": (GGMLQuantizationType.Q4_0, BLOCK // 2),
}
"""Type of a matrix and its bytes for a block, the scale not counted."""


def matrices(layer: int) -> dict[str, tuple[int, int]]:
    """Outputs and inputs of the matrices of a layer."""
    shapes = {
        "attn_q": (HEADS * HEAD_DIM, HIDDEN),
        "attn_k": (KV_HEADS * HEAD_DIM, HIDDEN),
        "attn_v": (KV_HEADS * HEAD_DIM, HIDDEN),
        "attn_output": (HIDDEN, HEADS * HEAD_DIM),
        "ffn_gate": (INTERMEDIATE, HIDDEN),
        "ffn_up": (INTERMEDIATE, HIDDEN),
        "ffn_down": (HIDDEN, INTERMEDIATE),
    }
    return {f"blk.{layer}.{name}.weight": shape for name, shape in shapes.items()}


def blocks(rows: int, columns: int, size: int, random: np.random.Generator) -> np.ndarray:
    """Blocks of a random matrix, `[rows, bytes]`: a scale in f16 and whole numbers, as Q8_0 and Q4_0 have them."""
    count = columns // BLOCK
    data = np.empty((rows, count, 2 + size), dtype=np.uint8)
    # Values of a size that keeps activations in the range of normalised ones.
    largest = 128 if size == BLOCK else 8
    scale = np.array([2.0 * columns**-0.5 / largest], dtype="<f2").view(np.uint8)
    data[:, :, :2] = scale
    data[:, :, 2:] = random.integers(0, 256, (rows, count, size), dtype=np.uint8)
    return data.reshape(rows, -1)


def write(path: Path, dtype: str, layers: int, vocab: int) -> int:
    """Writes a model.

    Returns the number of parameters of as many layers as the other side builds, the embedding table left out.
    """
    kind, size = FORMATS[dtype]
    head_kind, head_size = FORMATS["int8"]
    random = np.random.default_rng(0)
    writer = GGUFWriter(path, "llama")
    writer.add_block_count(layers)
    writer.add_context_length(8192)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_layer_norm_rms_eps(EPS)
    writer.add_rope_freq_base(THETA)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_vocab_size(vocab)
    writer.add_tokenizer_model("none")
    norm = np.ones(HIDDEN, dtype=np.float32)

    def add(name: str, rows: int, columns: int, kind: GGMLQuantizationType, size: int) -> None:
        writer.add_tensor(name, blocks(rows, columns, size, random), raw_dtype=kind)

    # As the other side has it: the head in 8 bits, whatever the layers are.
    add("token_embd.weight", vocab, HIDDEN, kind, size)
    add("output.weight", vocab, HIDDEN, head_kind, head_size)
    writer.add_tensor("output_norm.weight", norm)
    for layer in range(layers):
        for name, (rows, columns) in matrices(layer).items():
            add(name, rows, columns, kind, size)
        writer.add_tensor(f"blk.{layer}.attn_norm.weight", norm)
        writer.add_tensor(f"blk.{layer}.ffn_norm.weight", norm)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    each = sum(rows * columns for rows, columns in matrices(0).values()) + 2 * HIDDEN
    return each * min(layers, LAYERS) + HIDDEN + vocab * HIDDEN


class Runner:
    """A model and its context."""

    def __init__(self, path: Path, prompt: int, vocab: int):
        threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
        llama.llama_backend_init()
        self.model = llama.llama_model_load_from_file(
            str(path).encode(), llama.llama_model_default_params()
        )
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {path}")
        settings = llama.llama_context_default_params()
        settings.n_ctx = 1024
        settings.n_batch = 1024
        settings.n_threads = settings.n_threads_batch = threads
        self.context = llama.llama_init_from_model(self.model, settings)
        if not self.context:
            raise SystemExit("llama.cpp cannot make a context")
        self.prompt_len = prompt
        self.tokens = np.random.default_rng(1).integers(0, vocab, prompt).astype(np.int32)

    def read(self, tokens: np.ndarray) -> None:
        pointer = tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32))
        batch = llama.llama_batch_get_one(pointer, len(tokens))
        if llama.llama_decode(self.context, batch) != 0:
            raise SystemExit("llama.cpp cannot read these tokens")
        llama.llama_synchronize(self.context)

    def forget(self, first: int) -> None:
        """Leaves `first` tokens in the cache."""
        llama.llama_memory_seq_rm(llama.llama_get_memory(self.context), 0, first, -1)

    def prefill(self) -> float:
        self.forget(0)
        return timed(lambda: self.read(self.tokens))

    def decode(self) -> float:
        self.forget(self.prompt_len)
        seconds = 0.0
        for token in self.tokens[:ANSWER]:
            one = np.array([token], dtype=np.int32)
            seconds += timed(lambda one=one: self.read(one))
        return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload", choices=["llama.cpp/prefill", "llama.cpp/decode"])
    parser.add_argument("--dtype", choices=FORMATS, default="int4")
    parser.add_argument("--smoke", action="store_true", help="a network of one layer")
    parser.add_argument("--checkpoint", required=True, help="the file beside which the model is written")
    arguments = parser.parse_args()
    layers, vocab = (1, 1024) if arguments.smoke else (ALL_LAYERS, VOCAB)
    prompt = PROMPT // 10 if arguments.smoke else PROMPT
    path = Path(arguments.checkpoint).with_suffix(f".{arguments.dtype}.gguf")
    try:
        parameters = write(path, arguments.dtype, layers, vocab)
        runner = Runner(path, prompt, vocab)
        about = f"llama.cpp of llama-cpp-python {llama.__version__}"
        if arguments.workload.endswith("prefill"):
            serve(about, parameters, float(prompt), runner.prefill)
        else:
            runner.prefill()
            serve(about, parameters, float(ANSWER), runner.decode)
    finally:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
