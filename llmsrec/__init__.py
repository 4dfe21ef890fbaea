"""LLM-SRec (Kim et al., KDD 2025): sequential recommendation with a frozen language model.

`import llmsrec` offers the Python API of llmsrec/api.py (docs/api.md). It is loaded at first use, so that a stage
imports and depends on its own packages alone.
"""

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    api = import_module("llmsrec.api")
    if name not in api.__all__:
        raise AttributeError(f"module 'llmsrec' has no attribute '{name}'")
    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted(import_module("llmsrec.api").__all__)
