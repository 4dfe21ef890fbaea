"""A student before another catalogue: items that it has encoded keep their vector, others are read from their text."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.torch import load_file
from torch import Tensor

from llmsrec.config import from_mapping
from llmsrec.data.catalog import Catalog
from llmsrec.files import read_json
from llmsrec.student.heads import LLMSRecConfig
from llmsrec.student.model import LLMSRec
from llmsrec.student.ranker import StudentRanker, encode
from llmsrec.teacher.sasrec import SASRec
from llmsrec.teacher.transfer import same_network, shared_items, transferred
from llmsrec.unit import say_fresh


def beside(student: LLMSRec, teacher: SASRec, catalog: Catalog) -> LLMSRec:
    """The same heads around another teacher's table and another catalogue's titles."""
    model = LLMSRec(student.config, student.backbone, teacher, catalog)
    model.heads.load_state_dict(student.heads.state_dict())
    return model.eval()


def transferred_ranker(ranker: StudentRanker, own: Catalog, other: Catalog) -> StudentRanker:
    """Ranks the items of `other`; an item with the same id and title as in `own` is not encoded again."""
    student = ranker.model
    model = beside(student, transferred(student.teacher, own, other), other)
    vectors = np.zeros((other.num_items + 1, student.config.shared_size), dtype=np.float32)
    here, there = shared_items(own, other)
    alike = np.array(
        [own.titles[a] == other.titles[b] for a, b in zip(here, there, strict=True)], dtype=bool
    )
    vectors[there[alike]] = ranker.item_vectors.cpu().numpy()[here[alike]]
    new = np.setdiff1d(np.arange(1, other.num_items + 1), there[alike])
    vectors[new] = encode(model, new)
    return StudentRanker(model, vectors)


def student_of_champion(
    champion: Path | None, config: LLMSRecConfig, teacher: SASRec
) -> dict[str, Tensor] | None:
    """What the champion's student has learned, to go on from; `teacher` must have gone on from the champion's too."""
    if champion is None:
        return None
    if not same_network(SASRec.load(champion / "teacher").config, teacher.config):
        say_fresh("its teacher did not go on from the champion's")
        return None
    file = champion / "student" / "config.json"
    values = {key: value for key, value in read_json(file).items() if key != "model_type"}
    own = from_mapping(LLMSRecConfig, values, where=str(file))
    if replace(own, teacher=config.teacher, slot_dropout=config.slot_dropout) != config:
        say_fresh(f"the champion's student is {own}, asked for is {config}")
        return None
    return load_file(champion / "student" / "model.safetensors")
