"""Materialise one dataset in a process of its own, to be run beside others or killed: `ROOT ITEM [track]`."""

import json
import sys
from pathlib import Path

import dagster as dg

from orchestration.dvc_assets import dvc_assets
from orchestration.dvc_project import DvcProject
from orchestration.mlflow_runs import MlflowRuns


def main(root: Path, item: str, *, track: bool) -> int:
    tracker = MlflowRuns(root, "test") if track else None
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            dvc_assets(DvcProject(root, external=("data",)), {}, tracker),
            selection=dg.AssetSelection.assets("words", "counts"),
            partition_key=item,
            instance=instance,
            raise_on_error=False,
        )
    found = {
        event.step_key: event.step_materialization_data.materialization.metadata["outcome"].value
        for event in result.all_events
        if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION
    }
    print(json.dumps(found))
    return 0 if result.success else 1


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], track="track" in sys.argv[3:]))
