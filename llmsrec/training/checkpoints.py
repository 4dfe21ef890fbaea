"""Checkpoints: the state of a training in safetensors and JSON, bound to the run by a key."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from llmsrec.core.files import atomic_directory
from llmsrec.training import distributed

FORMAT = 2  # of the state that trainers save; a checkpoint of another format is not resumed


def fingerprint(*parts: Any) -> str:
    """SHA-256 of configs and arrays, as the key of a run."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(str((part.dtype, part.shape)).encode())
            digest.update(np.ascontiguousarray(part).data)
        else:
            digest.update(repr(part).encode())
        digest.update(b"\0")  # so that 1, 23 differs from 12, 3
    return digest.hexdigest()


class Checkpoints:
    """The last state of a training; without a folder nothing is saved. Only the main process writes."""

    def __init__(self, folder: Path | None, key: str) -> None:
        self.folder, self.key = folder, f"{FORMAT} {key}"

    def save(self, state: dict[str, Any]) -> None:
        """Replace the saved state: nested dicts and lists of tensors and JSON values."""
        if self.folder is None or not distributed.is_main_process():
            return
        tensors: dict[str, torch.Tensor] = {}
        document = _split(state, tensors)
        with atomic_directory(self.folder) as aside:
            save_file(tensors, aside / "state.safetensors")
            (aside / "state.json").write_text(json.dumps({"key": self.key, "state": document}))

    def load(self) -> dict[str, Any] | None:
        """The saved state; None if there is none or it belongs to a run with another key."""
        if self.folder is None or not (self.folder / "state.json").exists():
            return None
        document = json.loads((self.folder / "state.json").read_text())
        if document["key"] != self.key:
            return None
        tensors = load_file(self.folder / "state.safetensors")
        state: dict[str, Any] = _join(document["state"], tensors)
        return state

    def clear(self) -> None:
        """Delete the saved state."""
        if self.folder is not None and self.folder.exists() and distributed.is_main_process():
            # first: an interrupted deletion leaves nothing that can be loaded
            (self.folder / "state.json").unlink(missing_ok=True)
            shutil.rmtree(self.folder)


def _split(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """JSON with references to `tensors`, to which all tensors are added; dicts as pairs, to keep the type of keys."""
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().contiguous().clone()  # safetensors refuses shared memory
        return {"__tensor__": name}
    if isinstance(value, dict):
        return {"__dict__": [[key, _split(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_split(item, tensors) for item in value]
    return value


def _join(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, dict):
        if "__tensor__" in value:
            return tensors[value["__tensor__"]]
        return {key: _join(item, tensors) for key, item in value["__dict__"]}
    if isinstance(value, list):
        return [_join(item, tensors) for item in value]
    return value
