"""Tiny random decoders run through Hugging Face transformers, for `crates/llm/tests/decoders.rs`.

    python make_decoder_fixtures.py write FOLDER   # makes the cases
    python make_decoder_fixtures.py check FOLDER   # runs them again, e.g. under another version

Each case is a folder with `config.json` (in the spelling of published checkpoints),
`model.safetensors` (f32, published key names) and `io.safetensors`:

    ids           [2, 24]     the first 20 are the prompt, the last 4 the tokens of the cached steps
    logits        [2, 20, 64] one forward pass over the prompt
    step_logits   [2, 4, 64]  the 4 steps after the prompt, one token each, with a key-value cache
    short_logits  [2, 4, 64]  cached steps 6 to 9 after a prompt of 6 of the same ids: they cross
                              the sliding window and the trained context, which are both 8
    bf16_logits   [2, 20, 64] as `logits`, with every two-dimensional weight rounded to bfloat16 and
                              all arithmetic still in f32

Everything runs on a CPU in f32 with eager attention. Each run builds its model anew, because
transformers keep the frequencies of dynamic rotary scaling from one call to the next.

`check` also works under transformers 4.37, which Cambrian-1 was released with; families that a
version does not know yet are skipped and named.
"""

import argparse
import copy
import json
import math
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

PROMPT, SHORT_PROMPT, STEPS, VOCAB, BATCH = 20, 6, 4, 64, 2

# What every case shares; all keys are those of published `config.json` files.
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCAB,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "rope_theta": 10000.0,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def case(model_type, **keys):
    """The configuration of one case: the shared shape, with what makes it special."""
    return {"model_type": model_type, **SHAPE, **keys}


LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    # The wavelengths of 8 features at base 1000 are 6, 35, 199 and 1117 positions: one below
    # 64 / 4 (kept), one between (blended), two above 64 / 1 (stretched).
    "original_max_position_embeddings": 64,
}

CASES = {
    # One key head, heads wider than hidden / heads; "gelu" means the tanh form in Gemma.
    "gemma": case(
        "gemma",
        num_key_value_heads=1,
        head_dim=16,
        hidden_act="gelu",
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
    ),
    "llama_attention_bias": case("llama", attention_bias=True),
    "llama_grouped": case("llama", num_attention_heads=8, rope_theta=500000.0),
    "llama_rope_dynamic": case(
        "llama", max_position_embeddings=8, rope_scaling={"type": "dynamic", "factor": 2.0}
    ),
    "llama_rope_linear": case("llama", rope_scaling={"type": "linear", "factor": 4.0}),
    "llama_rope_llama3": case("llama", rope_theta=1000.0, rope_scaling=LLAMA3_SCALING),
    "llama_tied": case("llama", tie_word_embeddings=True),
    "mistral_window": case("mistral", sliding_window=8),
    "phi3_window": case("phi3", sliding_window=8, resid_pdrop=0.0, embd_pdrop=0.0),
}


def build(config, weights, bf16=False):
    """A model in evaluation mode with the given weights."""
    # A copy, because newer versions write into the dictionaries they are given.
    keys = {key: copy.deepcopy(value) for key, value in config.items() if key != "model_type"}
    made = transformers.AutoConfig.for_model(config["model_type"], **keys)
    model = transformers.AutoModelForCausalLM.from_config(made, attn_implementation="eager")
    model = model.float().eval()
    if weights is not None:
        result = model.load_state_dict(weights, strict=False)
        missing = [key for key in result.missing_keys if key != "lm_head.weight"]
        assert not missing and not result.unexpected_keys, result
        model.tie_weights()
    if bf16:
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.data = parameter.data.bfloat16().float()
        model.tie_weights()
    return model


def random_weights(config, generator):
    """Weights large enough that every part of the network shows in the logits.

    The usual initialisation (0.02) would make attention all but uniform and hide a wrong mask.
    """
    model = build(config, None)
    weights = {}
    for key, tensor in sorted(model.state_dict().items()):
        if key == "lm_head.weight" and config["tie_word_embeddings"]:
            continue
        if "rotary_emb" in key:
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if "norm" in key:
            centre = 0.0 if config["model_type"] == "gemma" else 1.0
            weights[key] = centre + 0.2 * noise
        elif tensor.dim() == 1:
            weights[key] = 0.5 * noise
        elif "q_proj" in key or "k_proj" in key or "qkv_proj" in key:
            weights[key] = noise * 1.3 / math.sqrt(tensor.shape[1])
        elif "embed" in key:
            # Gemma multiplies embeddings by the root of the width.
            weights[key] = noise / (4.0 if config["tie_word_embeddings"] else 1.0)
        else:
            weights[key] = noise / math.sqrt(tensor.shape[1])
    return weights


def prompt_logits(model, ids):
    return model(input_ids=ids, use_cache=False).logits


def step_logits(model, prompt, steps):
    """Logits of `steps`, one token at a time after `prompt`, `[b, steps, vocab]`."""
    output = model(input_ids=prompt, use_cache=True)
    logits = []
    for i in range(steps.shape[1]):
        token = steps[:, i : i + 1]
        output = model(input_ids=token, past_key_values=output.past_key_values, use_cache=True)
        logits.append(output.logits)
    return torch.cat(logits, dim=1)


@torch.no_grad()
def run(config, weights, ids):
    """The tensors of `io.safetensors`."""
    prompt, after = ids[:, :PROMPT], ids[:, PROMPT:]
    short, next_ids = ids[:, :SHORT_PROMPT], ids[:, SHORT_PROMPT : SHORT_PROMPT + STEPS]
    io = {
        "ids": ids,
        "logits": prompt_logits(build(config, weights), prompt),
        "step_logits": step_logits(build(config, weights), prompt, after),
        "short_logits": step_logits(build(config, weights), short, next_ids),
        "bf16_logits": prompt_logits(build(config, weights, bf16=True), prompt),
    }
    return {name: tensor.contiguous() for name, tensor in io.items()}


def assert_cache_is_recomputation(name, config, weights, io):
    """Cached steps are the tail of one long pass, except where frequencies change on the way."""
    if (config.get("rope_scaling") or {}).get("type") == "dynamic":
        return
    with torch.no_grad():
        whole = prompt_logits(build(config, weights), io["ids"])
    short = whole[:, SHORT_PROMPT : SHORT_PROMPT + STEPS]
    for found, expected in [(io["step_logits"], whole[:, PROMPT:]), (io["short_logits"], short)]:
        assert torch.allclose(found, expected, rtol=2e-5, atol=2e-5), name


def write(root):
    for number, (name, config) in enumerate(CASES.items()):
        generator = torch.Generator().manual_seed(1000 + number)
        weights = random_weights(config, generator)
        ids = torch.randint(0, VOCAB, (BATCH, PROMPT + STEPS), generator=generator)
        io = run(config, weights, ids)
        assert_cache_is_recomputation(name, config, weights, io)
        io["ids"] = ids.to(torch.int32)
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        save_file(io, folder / "io.safetensors")
        print(f"{name}: logits of standard deviation {io['logits'].std():.2f}")


def check(root):
    """Compares what the installed version computes; false if a tensor is off."""
    good = True
    for folder in sorted(path.parent for path in root.glob("*/config.json")):
        config = json.loads((folder / "config.json").read_text())
        kind = (config.get("rope_scaling") or {}).get("rope_type")
        if config["model_type"] not in transformers.CONFIG_MAPPING or kind == "llama3" and old():
            print(f"{folder.name}: not known to transformers {transformers.__version__}")
            continue
        io = load_file(folder / "io.safetensors")
        found = run(config, load_file(folder / "model.safetensors"), io["ids"].long())
        names = [name for name in found if name != "ids"]
        off = {name: (found[name] - io[name]).abs().max().item() for name in names}
        good &= all(torch.allclose(found[n], io[n], rtol=2e-5, atol=2e-5) for n in names)
        print(f"{folder.name}:", ", ".join(f"{name} {value:.1e}" for name, value in off.items()))
    return good


def old():
    """Whether the installed version is from before Llama 3.1's scaling (4.43)."""
    return tuple(int(part) for part in transformers.__version__.split(".")[:2]) < (4, 43)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["write", "check"])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    if arguments.what == "write":
        write(arguments.folder)
    elif not check(arguments.folder):
        sys.exit("some tensors are off by more than 2e-5 + 2e-5·|value|")


if __name__ == "__main__":
    main()
