"""The stack as real processes: an asset asked for in Dagster's API is built, tracked in MLflow, and kept on S3."""

import os
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import boto3
import psutil
import pytest
from mlflow.tracking import MlflowClient

from infra.postgres import find_program
from infra.processes import Processes, StackError
from infra.stack import BUCKET, Stack, new_home, running
from tests.orchestration.small_project import QUIET, dvc, write_project

CHECKOUT = Path(__file__).parents[2]
SECONDS = 240  # the machine may be busy
ABSENT = [
    name
    for name, found in {
        "initdb (Debian's package postgresql)": find_program("initdb"),
        "dagster-postgres (pip install '.[stack]')": find_spec("dagster_postgres"),
        "moto (pip install '.[dev]')": find_spec("moto"),
    }.items()
    if not found
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(ABSENT), reason=f"not here: {', '.join(ABSENT)}"),
    *QUIET,
]

DEFINITIONS = """
from pathlib import Path
import dagster as dg
from orchestration.dvc_assets import dvc_assets
from orchestration.dvc_project import DvcProject
from orchestration.mlflow_runs import MlflowRuns

root = Path(__file__).parent
assets = dvc_assets(DvcProject(root, external=("data",)), {}, MlflowRuns(root, "test"))
words = dg.define_asset_job("only_words", selection=dg.AssetSelection.assets("words"))
defs = dg.Definitions(assets=assets, jobs=[words], executor=dg.in_process_executor)
"""

LAUNCH = """
mutation($parameters: ExecutionParams!) {
  launchRun(executionParams: $parameters) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""

STATUS = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, Processes]]:
    root = write_project(tmp_path_factory.mktemp("stack") / "project")
    dvc(root, "add", "--quiet", "data")
    (root / "definitions.py").write_text(DEFINITIONS)
    paths = os.pathsep.join([str(CHECKOUT), os.environ.get("PYTHONPATH", "")])
    with pytest.MonkeyPatch.context() as patch, new_home() as home:
        patch.setenv("PYTHONPATH", paths)
        for name in ("DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        found = Stack(root, home, definitions=("--python-file", str(root / "definitions.py")))
        with running(found) as processes:
            yield found, processes


def launched(stack: Stack) -> str:
    parameters = {
        "selector": {
            "repositoryLocationName": "llmsrec",
            "repositoryName": "__repository__",
            "jobName": "only_words",
        },
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": "north"}]},
    }
    answer = stack.query(LAUNCH, parameters=parameters)["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer
    return str(answer["run"]["runId"])


def test_the_stack_works(stack: tuple[Stack, Processes]) -> None:
    """One test: to start it takes longer than all that is asked of it, and workers would each start their own."""
    an_asset_is_built_by_the_daemon_tracked_in_mlflow_and_kept_on_s3(*stack)
    nothing_listens_but_on_this_machine(stack[1])
    definitions_that_cannot_be_loaded_are_an_error(stack[0])


def an_asset_is_built_by_the_daemon_tracked_in_mlflow_and_kept_on_s3(
    found: Stack, processes: Processes
) -> None:
    run = launched(found)
    deadline = time.monotonic() + SECONDS
    while (status := found.query(STATUS, id=run)["runOrError"]["status"]) not in (
        "SUCCESS",
        "FAILURE",
    ):
        assert processes.ended() is None, processes.tail(str(processes.ended()))
        assert time.monotonic() < deadline, f"{status}\n{processes.tail('daemon')}"
        time.sleep(0.5)
    assert status == "SUCCESS", processes.tail("code")
    assert (found.root / "out/north/words/first.txt").read_text() == "snow"

    client = MlflowClient(found.mlflow_url)
    experiment = client.get_experiment_by_name("test")
    assert experiment is not None
    query = f"tags.dagster_run = '{run}' and tags.stage = 'words'"
    (tracked,) = client.search_runs([experiment.experiment_id], query)
    assert tracked.info.status == "FINISHED"
    names = [one.path for one in client.list_artifacts(tracked.info.run_id)]
    assert names
    assert keys(found) == {
        f"mlflow/{experiment.experiment_id}/{tracked.info.run_id}/artifacts/{name}"
        for name in names
    }


def definitions_that_cannot_be_loaded_are_an_error(found: Stack) -> None:
    file = found.root / "definitions.py"
    sound = file.read_text()
    reload = (
        'mutation { reloadRepositoryLocation(repositoryLocationName: "llmsrec") { __typename } }'
    )
    try:
        file.write_text("raise ValueError('of a colleague')")
        found.query(reload)
        with pytest.raises(StackError, match=r"(?s)cannot load llmsrec.*of a colleague"):
            found.check_definitions()
    finally:
        file.write_text(sound)
        found.query(reload)
    found.check_definitions()


def keys(stack: Stack) -> set[str]:
    env = stack.s3_env()
    client = boto3.client(
        "s3", endpoint_url=env["AWS_ENDPOINT_URL"], region_name=env["AWS_DEFAULT_REGION"],
        aws_access_key_id=stack.key, aws_secret_access_key=stack.key,
    )  # fmt: skip
    try:
        return {one["Key"] for one in client.list_objects_v2(Bucket=BUCKET).get("Contents", [])}
    finally:
        client.close()


def nothing_listens_but_on_this_machine(processes: Processes) -> None:
    heard: dict[str, set[str]] = {}
    for name, process in processes.running.items():
        family = [psutil.Process(process.pid)]
        family += family[0].children(recursive=True)
        heard[name] = set().union(*map(addresses, family))
    assert heard.pop("daemon") == set(), "it opens no port"
    for name, found in heard.items():
        assert found, f"{name} listens"
        assert found <= {"127.0.0.1", "::1"}, name


def addresses(process: psutil.Process) -> set[str]:
    """Where it listens: nowhere, if it has ended since it was found."""
    try:
        sockets = process.net_connections("inet")
    except psutil.NoSuchProcess:
        return set()
    return {
        socket.laddr.ip.removeprefix("::ffff:") for socket in sockets if socket.status == "LISTEN"
    }
