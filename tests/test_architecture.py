"""Rules that hold for the project as a whole; layers are import-linter's (`make check`)."""

import ast
import configparser
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import grimp
import pytest
import yaml

from llmsrec.core.config import SEEDED
from llmsrec.report.gates import GATES
from orchestration.dvc_assets import CHECK
from orchestration.dvc_project import DvcProject
from orchestration.dvc_stage import Stage

# DVC's own use of pygtrie.
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    file for name in ("llmsrec", "orchestration", "infra") for file in (ROOT / name).rglob("*.py")
)
EVERYTHING = sorted(
    file
    for package in ROOT.glob("[a-z]*/__init__.py")
    if package.parent.name != "tests"
    for file in package.parent.rglob("*.py")
)
LARGEST = {"file": 250, "function": 35, "parameters": 6}
# The exceptions; take an entry away with its cause.
LARGER = {"llmsrec/ranking/protocol.py: evaluate has 7 parameters"}  # four of them are options
STAGES = ROOT / "llmsrec" / "stages"
NEVER = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
DOORS = {
    "great_expectations": ["llmsrec/preprocessing/expectations.py"],
    "transformers": [
        "llmsrec/llm/pretrained.py",
        "llmsrec/backbones/small.py",
        "llmsrec/backbones/smollm2.py",
        "llmsrec/systems/recformer/longformer.py",  # no language model: neither frozen nor the project's backbone
    ],
    "boto3": ["llmsrec/sources/s3.py", "infra/bucket.py"],
    "botocore": ["llmsrec/sources/s3.py", "infra/bucket.py"],
    "psycopg2": ["infra/postgres.py"],
    "pyspark": ["llmsrec/relational/spark.py"],
    # training logs, pyfunc is what MLflow serves; runs and registry speak to its store
    "mlflow": [
        "llmsrec/training/loop.py",
        "llmsrec/serving/mlflow_model.py",
        "orchestration/mlflow_runs.py",
        "orchestration/registry.py",
    ],
    "argparse": ["llmsrec/stages", "orchestration/registry.py", "studies"],
    "streamlit": ["llmsrec/explore"],
    "dvc": ["orchestration/dvc_project.py"],
    "dagster": ["orchestration"],
}


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path: Path) -> set[str]:
    """Top names of all that a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.fixture(scope="module", autouse=True)
def own_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("DVC_SITE_CACHE_DIR", "DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        yield


@pytest.fixture(scope="module")
def datasets() -> list[str]:
    return list(yaml.safe_load((ROOT / "params.yaml").read_text())["datasets"])


@pytest.fixture(scope="module")
def pipelines(own_caches: None) -> tuple[str, ...]:
    """The files whose stages are assets."""
    from orchestration.definitions import PIPELINES

    return PIPELINES


@pytest.fixture(scope="module")
def root(datasets: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project whose studies are of the first dataset; by default they are of none."""
    root = tmp_path_factory.mktemp("project")
    for name in ("llmsrec", "studies"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml", "operations.yaml", ".dvc/config"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, root / name)
    params = yaml.safe_load((root / "studies/params.yaml").read_text())
    params["pipeline"]["datasets"] = datasets[:1]
    (root / "studies/params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    return root


@pytest.fixture(scope="module")
def definitions(own_caches: None, root: Path) -> dg.Definitions:
    from orchestration.definitions import build

    return build(root)


@pytest.fixture(scope="module")
def graph(definitions: dg.Definitions) -> Any:
    """Dagster's, of all assets."""
    return definitions.resolve_asset_graph()


@pytest.fixture(scope="module")
def stages(pipelines: tuple[str, ...], root: Path, datasets: list[str]) -> dict[str, Stage]:
    """The stages of the first dataset, by name."""
    found = DvcProject(root, external=("data",), pipelines=pipelines).stages().values()
    of_first = (stage for stage in found if str(stage.item).partition("-")[0] == datasets[0])
    return {stage.name: stage for stage in of_first}


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("llmsrec", "studies", cache_dir=None)


def parents(graph: Any) -> dict[str, set[str]]:
    return {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.get_all_asset_keys()
    }


def test_the_asset_graph_is_the_graph_of_dvc(
    graph: Any, pipelines: tuple[str, ...], root: Path, tmp_path: Path
) -> None:
    for name in (*pipelines, "params.yaml", "studies/params.yaml", ".dvc/config"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(root / name, tmp_path / name)
    (tmp_path / "data.dvc").write_text("outs: [{path: data, hash: md5, md5: 0.dir}]\n")
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    drawn = subprocess.run(
        [sys.executable, "-m", "dvc", "dag", "--dot"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    theirs: set[tuple[str, str]] = set()
    for line in drawn.splitlines():
        if "->" in line:
            ends = (end.strip(' ;"').partition("@")[0] for end in line.split("->"))
            first, second = (end.rpartition(":")[2] for end in ends)
            theirs.add(("arrivals" if first == "data.dvc" else first, second))
    ours = {(parent, child) for child, found in parents(graph).items() for parent in found}
    by_hand = {("raw_reviews", "arrivals"), ("evaluation", "champion")}  # DVC does not know these
    assert ours == theirs | by_hand


def test_the_chain_leads_from_raw_reviews_to_the_champion(graph: Any) -> None:
    found = parents(graph)

    def depth(name: str) -> int:
        return 1 + max((depth(parent) for parent in found[name]), default=-1)

    levels: dict[int, set[str]] = {}
    for name in found:
        levels.setdefault(depth(name), set()).add(name)
    assert levels == {
        0: {"raw_reviews"},
        1: {"arrivals"},
        2: {"interactions"},
        3: {"splits"},
        4: {"teacher", "backbone"},
        5: {"student", "trainings"},
        6: {"recommender", "study"},
        7: {"item_embeddings", "recommendations", "evaluation"},
        8: {"champion"},
    }
    assert {"splits", "teacher", "backbone"} <= found["student"]
    assert {"student", "teacher", "backbone"} <= found["recommender"]
    assert {"recommender", "teacher"} <= found["item_embeddings"]
    assert {"recommender", "student", "teacher", "backbone"} <= found["recommendations"]
    assert {"recommender", "student", "teacher"} <= found["evaluation"]
    assert found["study"] == {"splits", "trainings"}


def test_every_asset_is_described_grouped_pooled_and_has_the_datasets_as_partitions(
    graph: Any, datasets: list[str]
) -> None:
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description, key
        assert node.group_name != "default", key
        assert len(node.pools) == 1, key
        assert node.partitions_def is not None, key
        partitions = node.partitions_def.get_partition_keys()
        if key in ASIDE:
            assert {item.partition("-")[0] for item in partitions} <= set(datasets), key
        else:
            assert set(partitions) == set(datasets), key


ASIDE = {dg.AssetKey("trainings"), dg.AssetKey("study")}  # by jobs of their own


def test_the_job_runs_every_asset_but_studies(definitions: dg.Definitions, graph: Any) -> None:
    from orchestration.definitions import JOB

    everything = set(graph.get_all_asset_keys())
    for name, keys in (
        (JOB, everything - ASIDE),
        ("retrain", everything - ASIDE - {dg.AssetKey("raw_reviews")}),
        ("train_study", {dg.AssetKey("trainings")}),
        ("tabulate_study", {dg.AssetKey("study")}),
    ):
        job = definitions.resolve_job_def(name)
        assert job.asset_layer.executable_asset_keys == keys, name


def test_a_code_server_loads_all_of_it(definitions: dg.Definitions) -> None:
    """What it does at its start, and nobody else: two things of one name are found only here."""
    definitions.get_repository_def().load_all_definitions()


def test_by_default_there_is_no_study(own_caches: None) -> None:
    """So that `dvc status` of a built clone names nothing that was never asked for."""
    from orchestration.definitions import build

    keys = build(ROOT).resolve_asset_graph().get_all_asset_keys()
    assert not set(keys) & ASIDE


def test_the_table_of_a_study_waits_for_its_trainings(graph: Any, datasets: list[str]) -> None:
    pipeline = yaml.safe_load((ROOT / "studies/params.yaml").read_text())["pipeline"]
    study, trainings = (graph.get(dg.AssetKey(name)) for name in ("study", "trainings"))
    keys = study.partitions_def.get_partition_keys()
    assert keys == trainings.partitions_def.get_partition_keys()
    assert keys == [f"{datasets[0]}-{name}" for name in pipeline["studies"]]
    assert dg.AssetKey("trainings") not in study.partition_mappings  # the same partition


def test_splits_are_checked_before_training(graph: Any) -> None:
    (key,) = (key for key in graph.asset_check_keys if key.name == CHECK)
    assert key.asset_key == dg.AssetKey("splits")
    assert graph.get_check_spec(key).blocking


def test_the_gates_are_checks_of_the_evaluation(graph: Any) -> None:
    """What gates.py judges, under the names that dvc.yaml gives. A failed one shows red; what was built stays."""
    keys = {key for key in graph.asset_check_keys if key.name != CHECK}
    assert {key.asset_key for key in keys} == {dg.AssetKey("evaluation")}
    assert {key.name for key in keys} == set(GATES)
    assert not any(graph.get_check_spec(key).blocking for key in keys)


def test_what_an_asset_shows_is_an_output_of_its_stage(stages: dict[str, Stage]) -> None:
    """Else a stage restored from the run cache, or a fresh clone, would show another run's report."""
    for stage in stages.values():
        outputs = [Path(output.path) for output in stage.outputs]
        shown = [*stage.meta.get("links", {}).values()]
        shown += [stage.meta[name] for name in ("checks", "picture") if name in stage.meta]
        shown += [stage.meta["gates"]["report"]] if "gates" in stage.meta else []
        for path in shown:
            assert any(Path(path).is_relative_to(output) for output in outputs), path


def module_of(stage: Stage) -> str:
    words = shlex.split(stage.command)
    return words[words.index("-m") + 1]


def files_of(module: str) -> list[Path]:
    """The module's file, and those of the packages that Python runs before it."""
    names = module.split(".")
    path = ROOT.joinpath(*names)
    inits = [ROOT.joinpath(*names[:depth], "__init__.py") for depth in range(1, len(names))]
    return [*inits, path / "__init__.py" if path.is_dir() else path.with_suffix(".py")]


def says_nothing(path: Path) -> bool:
    """An `__init__.py` of a docstring alone."""
    body = parsed(path).body
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


def closure_of(stage: Stage, imports: grimp.ImportGraph) -> set[Path]:
    """The files whose code runs when the command of a stage is imported, and the templates beside them."""
    module = module_of(stage)
    names = {module, *imports.find_upstream_modules(module)}
    code = {file for name in names for file in files_of(name)}
    return {file for file in code if not (file.name == "__init__.py" and says_nothing(file))}


def listed(stage: Stage) -> set[Path]:
    """The files that the code dependencies of a stage hold."""
    found: set[Path] = set()
    for path in (ROOT / name for name in stage.code):
        found |= set(path.rglob("*.py")) if path.is_dir() else {path}
    return {file for file in found if not (file.name == "__init__.py" and says_nothing(file))}


def test_code_dependencies_are_the_import_closure_of_the_command(
    stages: dict[str, Stage], imports: grimp.ImportGraph
) -> None:
    """A missing file would leave a stage fresh that is stale; a surplus one would retrain for nothing."""
    for stage in stages.values():
        needed, held = closure_of(stage, imports), listed(stage)
        assert sorted(map(named, needed - held)) == [], f"{stage.name} lacks"
        surplus = {file for file in held - needed if file.suffix == ".py"}
        assert sorted(map(named, surplus)) == [], f"{stage.name} has more than it runs"


@pytest.mark.parametrize(
    ("edited", "stale"),
    [
        ("llmsrec/report/report.html", {"evaluation"}),
        ("llmsrec/report/style.css", {"evaluation", "study"}),
        ("llmsrec/report/plots.py", {"evaluation", "study"}),
        ("llmsrec/arrivals/inbox.py", set()),
        ("llmsrec/generation/titles.py", {"trainings"}),
        ("llmsrec/systems/gru4rec.py", {"trainings"}),
        ("llmsrec/serving/recommender.py", set()),
    ],
)
def test_an_edit_makes_stale_what_depends_on_it_and_nothing_else(
    stages: dict[str, Stage], edited: str, stale: set[str]
) -> None:
    assert (ROOT / edited).exists()
    found = {
        stage.name
        for stage in stages.values()
        if any(Path(edited).is_relative_to(path) for path in stage.code)
    }
    assert found == stale


def test_the_import_graph_sees_imports_inside_functions(imports: grimp.ImportGraph) -> None:
    """What is imported late counts too; the command line, which does so, proves it."""
    found = imports.find_modules_directly_imported_by("llmsrec.cli")
    assert "llmsrec.serving.recommender" in found


def test_dependencies_name_nothing_that_does_not_exist(stages: dict[str, Stage]) -> None:
    for stage in stages.values():
        absent = [path for path in stage.code if not (ROOT / path).exists()]
        assert absent == [], stage.name
        assert len(set(stage.code)) == len(stage.code), stage.name


def test_a_stage_depends_on_the_knobs_that_it_reads(stages: dict[str, Stage]) -> None:
    for stage in stages.values():
        file = files_of(module_of(stage))[-1]
        read = {
            node.args[1].value
            for node in ast.walk(parsed(file))
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "load_section"
            and isinstance(node.args[1], ast.Constant)
        }
        if stage.name in ("trainings", "study"):  # read by studies.config.Settings
            read |= {"protocol", "studies", "systems", "evaluation"}
        if stage.name == "trainings":
            read |= {"teacher", "student"}
        if stage.name == "backbone":  # student.max_prompt_tokens, read by backbones.build
            read |= {"student"}
        common = {"seed"} if read & set(SEEDED) else set()
        assert read | common == {key.partition(".")[0] for key in stage.params}, stage.name


def test_every_stage_module_is_a_step_of_the_graph_or_of_an_asset_written_by_hand(
    stages: dict[str, Stage],
) -> None:
    modules = {f"llmsrec.stages.{file.stem}" for file in STAGES.glob("[a-z]*.py")}
    by_hand = {
        f"llmsrec.stages.{name}"
        for name in ("download", "arrivals", "pack_bundle", "compare_champion")
    }
    of_studies = {"studies.train", "studies.tabulate"}
    assert modules | of_studies == {module_of(stage) for stage in stages.values()} | by_hand


def test_the_code_server_starts_without_torch_and_the_library() -> None:
    heavy = ("torch", "transformers", "mlflow", "great_expectations", "pyarrow")
    code = (
        "import sys, orchestration.definitions; print([m for m in sys.modules if m in "
        f"{heavy} or m.startswith('llmsrec.') and not m.startswith('llmsrec.core')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("library", DOORS)
def test_a_library_has_one_door(library: str) -> None:
    users = [named(path) for path in SOURCES if library in imported(path)]
    doors = DOORS[library]
    assert users, f"nobody imports {library}: strike it off"
    assert [user for user in users if not any(Path(user).is_relative_to(d) for d in doors)] == []


def test_nothing_is_loaded_that_could_run_code() -> None:
    for path in SOURCES:
        assert not imported(path) & NEVER, named(path)
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) != ("torch", "load"), named(path)
            if isinstance(node, ast.ImportFrom) and node.module == "torch":
                assert "load" not in {alias.name for alias in node.names}, named(path)
            if isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "allow_pickle"):
                assert isinstance(node.value, ast.Constant), named(path)
                assert node.value.value is False, named(path)


def sizes(path: Path) -> Iterator[tuple[str, str, int]]:
    """What is measured (a key of LARGEST), its description and its size."""
    lines = len(path.read_text(encoding="utf-8").splitlines())
    yield "file", f"{named(path)}: {lines} lines", lines
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            yield "function", f"{named(path)}: {node.name} has {lines} lines", lines
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = sum(argument.arg not in ("self", "cls") for argument in arguments)
            yield "parameters", f"{named(path)}: {node.name} has {count} parameters", count


def test_files_functions_and_parameter_lists_are_small() -> None:
    found = [size for path in EVERYTHING for size in sizes(path)]
    large = {description for kind, description, size in found if size > LARGEST[kind]}
    assert sorted(large - LARGER) == []


def test_every_module_has_a_docstring() -> None:
    assert [named(path) for path in EVERYTHING if not ast.get_docstring(parsed(path))] == []


def test_servers_listen_on_this_machine_only() -> None:
    servers = 0
    for line in (ROOT / "infra" / "Procfile").read_text().splitlines():
        words = shlex.split(line.partition(":")[2])
        assert "0.0.0.0" not in words
        if words[:2] != ["dagster-daemon", "run"]:  # it opens no port
            assert words[words.index("--host") + 1] == "127.0.0.1", line
            servers += 1
    assert servers == 2


def test_telemetry_is_off() -> None:
    dagster = yaml.safe_load((ROOT / "infra" / "dagster.yaml").read_text())
    assert dagster["telemetry"] == {"enabled": False}
    dvc = configparser.ConfigParser()
    dvc.read(ROOT / ".dvc" / "config")
    assert dvc["core"]["analytics"] == "false"
    assert dvc["core"]["check_update"] == "false"
    makefile = (ROOT / "Makefile").read_text()
    assert "export DO_NOT_TRACK := 1" in makefile
    assert "export MLFLOW_DISABLE_TELEMETRY := true" in makefile


def test_dvc_ignores_caches_and_partial_downloads() -> None:
    ignored = (ROOT / ".dvcignore").read_text().split()
    assert {"__pycache__", "*.partial", "/data/.sample*"} <= set(ignored)
