"""The artifacts of a dataset whose items have words in common; the models are untrained."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from llmsrec.core.config import load_section
from llmsrec.core.files import sha256
from llmsrec.data.catalog import Catalog
from llmsrec.data.splits import Splits
from llmsrec.llm.backbone import load_backbone
from llmsrec.recommender.fitted import RecommenderConfig, fit_recommender
from llmsrec.sequential.sasrec import SASRec, SASRecConfig
from llmsrec.serving.recommender import Recommender
from llmsrec.student.config import StudentConfig
from llmsrec.student.trainer import new_student

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture(scope="session")
def splits(few_splits: Splits) -> Splits:
    """Descriptions of three words out of twelve; the ids of the users are not in order."""
    items = few_splits.catalog.items.copy()
    draws = np.random.default_rng(0)
    words = [f"word{number}" for number in range(12)]
    items["description"] = [" ".join(draws.choice(words, 3, replace=False)) for _ in items.index]
    users = [f"{user[::-1]}é" for user in few_splits.user_ids]
    return replace(few_splits, catalog=Catalog(items), user_ids=users)


@pytest.fixture(scope="session")
def artifacts(
    tmp_path_factory: pytest.TempPathFactory, splits: Splits, small_backbone: Path
) -> Path:
    folder = tmp_path_factory.mktemp("artifacts") / "tiny"
    splits.save(folder / "splits")
    (folder / "backbone").symlink_to(small_backbone)
    torch.manual_seed(1)
    config = SASRecConfig(splits.num_items, 16, 1, 1, 0.1, "pre", 32, "standard", 4)
    teacher = SASRec(config).eval().requires_grad_(False)
    teacher.save(folder / "teacher")
    settings = load_section(StudentConfig, "student", PARAMS)
    settings = replace(settings, shared_size=16, head_size=32, window=4, stride=2)
    student = new_student(settings, load_backbone(small_backbone), teacher, splits.catalog).eval()
    student.save_pretrained(folder / "student")
    digest = sha256(folder / "student" / "model.safetensors")
    section = load_section(RecommenderConfig, "recommender", PARAMS)
    fitted = fit_recommender(student, splits, section, digest)
    weights = {"teacher": 0.5, "student": 1.0, "content": 2.0}
    replace(fitted, weights=weights).save(folder / "recommender")
    return folder


@pytest.fixture(scope="session")
def recommender(artifacts: Path) -> Recommender:
    return Recommender.load(artifacts)
