"""Train a system's stages in order; trained stages are loaded, an interrupted one resumes."""

from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from llmsrec.core.files import atomic_write, write_json
from llmsrec.systems.system import System, TrainingInput
from llmsrec.training.checkpoints import Checkpoints
from llmsrec.training.loop import MetricLog, Rows, train
from llmsrec.training.seeding import seed_torch

WEIGHTS = "model.safetensors"


def train_system(
    system: System, inputs: TrainingInput, folder: Path, scratch: Path, key: str
) -> nn.Module:
    """The trained network; its weights and the curve of each stage are written to `folder`. `key` names it."""
    seed_torch(inputs.seed)
    network = system.network(inputs).to(inputs.device)
    if (folder / WEIGHTS).exists():
        load(network, folder / WEIGHTS)
        return network.eval()
    curves: list[dict[str, str | Rows | None]] = []
    for number, stage in enumerate(system.stages(network, inputs)):
        done = scratch / f"{key[:12]}-{number}"
        log = MetricLog(done / "curve.json")
        if (done / WEIGHTS).exists():
            load(network, done / WEIGHTS)
            log.load()
        else:
            checkpoints = Checkpoints(done / "state", f"{key} {number}")
            train(stage.trainer, stage.plan, log, checkpoints)
            log.save()
            save(network, done / WEIGHTS)
            checkpoints.clear()
        curves.append({"selected_by": stage.plan.select_by, "validations": log.rows})
        # later stages are the same whether this one ran in this process or an earlier one
        seed_torch(inputs.seed)
    write_json(folder / "curves.json", curves)
    save(network, folder / WEIGHTS)  # last: its presence says that the folder is complete
    return network.eval()


def save(network: nn.Module, file: Path) -> None:
    with atomic_write(file) as aside:
        save_file(
            {name: part.contiguous().cpu() for name, part in network.state_dict().items()}, aside
        )


def load(network: nn.Module, file: Path) -> None:
    network.load_state_dict(load_file(file))


def num_trained(network: nn.Module) -> int:
    """Parameters that take a gradient in one of the stages, shared ones once."""
    return sum(part.numel() for part in network.parameters() if part.requires_grad)
