"""The peers' side of the protocol of `xtask/examples/measure`: one pass per line of input."""

import json
import sys
import time
from collections.abc import Callable


def serve(
    about: str,
    parameters: int,
    amount: float,
    run: Callable[[], float],
    losses: tuple[float, ...] = (),
    compiled: bool = False,
) -> None:
    """Warms up, then runs a pass for every line of input; `run` returns its seconds."""
    run()
    ready = {
        "about": about,
        "parameters": parameters,
        "amount": amount,
        "losses": losses,
        "compiled": compiled,
    }
    say({"ready": ready})
    for _ in sys.stdin:
        say({"pass": {"seconds": run()}})
    say({"peak": {"bytes": peak_bytes()}})


def say(message: dict) -> None:
    print(json.dumps(message), flush=True)


def peak_bytes() -> int | None:
    """Peak resident memory of this process, where the system tells."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def timed(function: Callable[[], object]) -> float:
    """Its seconds."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
