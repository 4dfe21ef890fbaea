"""LLM-SRec (Kim et al., KDD 2025): sequential recommendation with a frozen language model.

`import llmsrec` offers the Python API of llmsrec/api.py (docs/api.md). It is loaded at first use, so that a stage
imports and depends on its own packages alone.
"""

import os
from importlib import import_module
from typing import Any

# Threads of torch that wait sleep instead of spinning: beside other processes a training is several times faster, and
# alone as fast (benchmarks/busy_machine.py). OpenMP reads it when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __getattr__(name: str) -> Any:
    api = import_module("llmsrec.api")
    if name not in api.__all__:
        raise AttributeError(f"module 'llmsrec' has no attribute '{name}'")
    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted(import_module("llmsrec.api").__all__)
