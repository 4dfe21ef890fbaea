"""Before it learns to recommend, the student learns to use its slots.

What f_I writes into a slot must come through the frozen layers to where a prompt is read. Taught by the retrieval loss
alone it hardly does: half of what a teacher's embedding says was lost on the way (docs/experiments.md). So f_I and the
soft tokens first learn, on item prompts, that a linear map finds the teacher's embedding in the state at the end. An
item prompt runs three tokens, so a thousand of these steps take as long as a few hundred of training.
"""

from typing import TYPE_CHECKING

import torch
from torch import nn

from llmsrec.progress import Progress
from llmsrec.student.schedule import cosine
from llmsrec.training import generator

if TYPE_CHECKING:
    from llmsrec.student.model import LLMSRec

BATCH = 256  # items of a step
RATE = 0.01  # of what fills the slots
MAP_RATE = 0.003  # of the map, which is thrown away


def teach_slots(model: "LLMSRec", steps: int, seed: int) -> float:
    """Returns the share of the embeddings' variance that arrived, on the last twentieth of the steps."""
    known = model.teacher.item_table[1:].to(model.backbone.device)
    wanted = (known - known.mean(dim=0)) / known.std(dim=0).clamp(min=1e-6)
    reader = nn.Linear(model.config.hidden_size, wanted.shape[1]).to(wanted.device)
    optimizer = torch.optim.Adam(
        [
            {"params": model.heads.writing(), "top": RATE},
            {"params": list(reader.parameters()), "top": MAP_RATE},
        ],
        lr=RATE,
        betas=(0.9, 0.98),
    )
    progress = Progress("slots", steps, "steps")
    count = min(BATCH, len(wanted))
    lost: list[float] = []
    for step in range(steps):
        items = generator(seed, 4, step).choice(len(wanted), count, replace=False)
        found = reader(model.item_states(1 + items))
        loss = (found - wanted[torch.from_numpy(items).to(wanted.device)]).square().mean()
        for group in optimizer.param_groups:
            group["lr"] = group["top"] * cosine(step, steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        lost.append(loss.item())
        progress.advance(note=f"{1 - lost[-1]:.0%} arrives")
    last = lost[-max(1, steps // 20) :]
    return 1 - sum(last) / len(last)
