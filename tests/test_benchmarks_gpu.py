"""The commands for a bare machine with a GPU: the packages that they need, resuming, and the numbers that they give."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks import gpu_training
from benchmarks.gpu import SHAPES, check
from llmsrec.data.splits import Splits

ROOT = Path(__file__).parents[1]
# docs/howto/gpu.md lists these; pip installs what they depend on
PACKAGES = (
    "torch", "transformers", "numpy", "pandas", "pyarrow", "pydantic", "safetensors", "jaxtyping",
    "pyyaml", "scikit-learn", "scipy",
)  # fmt: skip


def with_dependencies(names: tuple[str, ...]) -> set[str]:
    """The distributions and everything that they require without extras."""
    closure: set[str] = set()
    queue = [Requirement(name) for name in names]
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        if name in closure or (
            requirement.marker and not requirement.marker.evaluate({"extra": ""})
        ):
            continue
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        closure.add(name)
        queue += [Requirement(text) for text in required]
    return closure


@pytest.mark.parametrize("module", ["benchmarks.gpu", "benchmarks.gpu_training"])
def test_import_needs_only_the_listed_packages(module: str) -> None:
    """All other installed packages are blocked."""
    available = with_dependencies(PACKAGES)
    blocked = sorted(
        name
        for name, owners in metadata.packages_distributions().items()
        if name.isidentifier()
        and name not in ("benchmarks", "llmsrec")
        and not {canonicalize_name(owner) for owner in owners} & available
    )
    assert "dagster" in blocked
    code = f"import sys\nfor name in {blocked}: sys.modules[name] = None\nimport {module}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=environment)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_device_check_passes_on_the_cpu(dtype: torch.dtype) -> None:
    check(torch.device("cpu"), dtype)


def test_the_shapes_have_the_parameter_counts_of_their_models() -> None:
    sizes = {name: shape.layer_weights / 1e6 for name, shape in SHAPES.items()}
    assert sizes["smollm2"] == pytest.approx(
        106.2, abs=0.1
    )  # of 134.5 million, 28.3 are the tokens'
    assert sizes["llama_3b"] == pytest.approx(2818.6, abs=0.1)  # of 3,212.7 million, 394.0 are


def test_the_same_command_resumes(
    tmp_path: Path, markov_splits: Splits, small_backbone: Path, params: Callable[..., Path]
) -> None:
    markov_splits.save(tmp_path / "splits")
    teacher = {"epochs": 4, "embedding_size": 16, "max_length": 16, "learning_rate": 0.01}
    student = {"shared_size": 16, "head_size": 32, "epochs": 2, "batch_size": 64, "window": 4,
               "stride": 2, "validation_users": 20}  # fmt: skip
    file = params(teacher=teacher, student=student)
    command = ["--splits", str(tmp_path / "splits"), "--backbone", str(small_backbone / "model")]
    command += ["--params", str(file), "--layers", "1"]

    def run(out: str, minutes: float) -> pd.DataFrame:
        gpu_training.main([*command, "--out", str(tmp_path / out), "--minutes", str(minutes)])
        return pd.read_csv(tmp_path / out / "table.csv")

    first = run("sliced", 0)
    assert not first["finished"].any()
    sliced, whole = run("sliced", 10), run("whole", 10)
    assert sliced["finished"].all()
    pd.testing.assert_frame_equal(sliced, whole)
    assert set(sliced["system"]) == {
        "teacher", "student", "content", "recommender_without_student", "recommender",
        "teacher, shuffled", "student, shuffled",
    }  # fmt: skip
    ranks = np.load(tmp_path / "whole" / "ranks.npz")
    better = ranks["student/full/better"]
    assert len(better) == len(markov_splits.candidates["test"])
    hit = sliced.query("system == 'student' and protocol == 'full' and metric == 'hr@10'")
    if not ranks["student/full/ties"].any():
        assert hit["value"].item() == pytest.approx((better < 10).mean())
