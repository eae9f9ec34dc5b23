"""One whole question at the size of the 8B model.

The parts are the workloads that are also measured alone; see `xtask/examples/measure/question.rs`.
"""

import torch

import connector
import decoder
import encoders
from protocol import Workload, compile_if_faster, count

ENCODERS = ("siglip", "clip", "dinov2", "convnext")
IN_LLM = 10
WHOLE_ANSWER = 64


def workload(dtype: torch.dtype, smoke: bool) -> Workload:
    parts = [(1, encoders.workload(name, dtype, smoke)) for name in ENCODERS]
    parts.append((1, connector.workload("sva", dtype, smoke)))
    parts.append((IN_LLM, connector.workload("in-llm", dtype, smoke)))
    runner = decoder.Runner(dtype, smoke)
    parameters = sum(part.parameters for _, part in parts) + count(runner.model)

    def answer() -> float:
        return runner.prefill() + runner.decode() * WHOLE_ANSWER / decoder.ANSWER

    compiled = compile_if_faster(runner.model.layers, answer, shapes_change=True)
    compiled = compiled or any(part.compiled for _, part in parts)

    def run() -> float:
        return sum(times * part.run() for times, part in parts) + answer()

    return Workload(parameters, 1.0, run, compiled=compiled)
