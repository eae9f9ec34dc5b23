"""One whole question at the size of the 8B model.

The parts are the workloads that are also measured alone; see `xtask/examples/measure/question.rs`.
"""

import torch

import connector
import decoder
import encoders
from protocol import Workload, count

ENCODERS = ("siglip", "clip", "dinov2", "convnext")
IN_LLM = 10
WHOLE_ANSWER = 64


def workload(dtype: torch.dtype, smoke: bool) -> Workload:
    parts = [(1, encoders.workload(name, dtype, smoke)) for name in ENCODERS]
    parts.append((1, connector.workload("sva", dtype, smoke)))
    parts.append((IN_LLM, connector.workload("in-llm", dtype, smoke)))
    runner = decoder.Runner(dtype, smoke)
    parameters = sum(part.parameters for _, part in parts) + count(runner.model)

    def run() -> float:
        seen = sum(times * part.run() for times, part in parts)
        read = runner.prefill()
        return seen + read + runner.decode() * WHOLE_ANSWER / decoder.ANSWER

    return Workload(parameters, 1.0, run)
