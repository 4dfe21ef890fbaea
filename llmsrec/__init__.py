"""LLM-SRec (Kim et al., KDD 2025): sequential recommendation with a frozen language model.

`import llmsrec` offers the Python API of llmsrec/api.py (docs/api.md). It is loaded at first use, so that a stage
imports and depends on its own packages alone.
"""

import os
from importlib import import_module
from typing import Any

# Threads of torch that wait for each other spin, which is fastest alone. Beside other processes they burn the time that
# the others need, and sleeping is several times faster (benchmarks/busy_machine.py). OpenMP reads the policy when torch
# is imported.
if hasattr(os, "getloadavg") and os.getloadavg()[0] > (os.cpu_count() or 1) + 0.5:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __getattr__(name: str) -> Any:
    api = import_module("llmsrec.api")
    if name not in api.__all__:
        raise AttributeError(f"module 'llmsrec' has no attribute '{name}'")
    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted(import_module("llmsrec.api").__all__)
