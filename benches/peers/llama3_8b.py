"""The shape of Llama-3 8B, and what is asked of it."""

ALL_LAYERS = 32
LAYERS = 4
"""So many are built where all are the same and time is scaled."""
PROMPT = 700
ANSWER = 8
HIDDEN, INTERMEDIATE = 4096, 14336
HEADS, KV_HEADS, HEAD_DIM = 32, 8, 128
VOCAB = 128256
EPS = 1e-5
THETA = 500000.0
