"""What the language model costs at a request, in units that do not depend on the machine."""

from llmsrec.data.sequences import Sequences
from llmsrec.llm.retrieval import RetrievalModel


def reading_cost(student: RetrievalModel, histories: Sequences) -> dict[str, float]:
    """Tokens of a user's prompt, and the 10^9 multiplications and additions to read it: the mean over `histories`.

    A token costs two operations for each parameter of the layers; attention between tokens is not counted."""
    tokens = float(student.prompts.users(histories).lengths.mean())
    model = student.backbone.model
    parameters = sum(each.numel() for each in model.parameters())
    parameters -= model.get_input_embeddings().weight.numel()
    return {"tokens": round(tokens, 1), "gflop": round(2e-9 * parameters * tokens, 3)}
