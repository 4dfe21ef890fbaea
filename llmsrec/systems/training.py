"""Train a system's stages one after another; what is trained is kept, what was interrupted goes on."""

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
    system: System, given: TrainingInput, folder: Path, scratch: Path, key: str
) -> nn.Module:
    """The trained network. `folder` gets its weights and the curve of each stage; `key` names all it depends on."""
    seed_torch(given.seed)
    network = system.network(given).to(given.device)
    if (folder / WEIGHTS).exists():
        load(network, folder / WEIGHTS)
        return network.eval()
    curves: list[dict[str, str | Rows | None]] = []
    for number, stage in enumerate(system.stages(network, given)):
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
        curves.append({"selected_by": stage.plan.select_by, "looks": log.rows})
        # what follows is alike whether this stage ran now or in another process
        seed_torch(given.seed)
    write_json(folder / "curves.json", curves)
    save(network, folder / WEIGHTS)  # last: with it the folder is whole
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
