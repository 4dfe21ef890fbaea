"""Rules of compose.yaml, its entry, its image and its secrets; `docker compose config` reads the rest."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
COMPOSE: dict[str, Any] = yaml.safe_load((INFRA / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {"webserver", "daemon", "code", "mlflow", "bucket"}
PINNED = re.compile(r"[\w./-]+:\d[\w.-]*")
SECRET = re.compile(r"PASSWORD|SECRET|ACCESS_KEY|TOKEN|STORE_URI")
REQUIRED = re.compile(r"\$\{([A-Z0-9_]+):\?[^}]+\}")

each_service = pytest.mark.parametrize("name", SERVICES)


@each_service
def test_an_image_is_pinned(name: str) -> None:
    assert PINNED.fullmatch(SERVICES[name]["image"])
    assert (name in OURS) == ("build" in SERVICES[name])


@each_service
def test_services_have_no_unneeded_privileges(name: str) -> None:
    service = SERVICES[name]
    more = {"entry": ["NET_BIND_SERVICE"], "s3": ["CHOWN", "DAC_OVERRIDE", "SETGID", "SETUID"]}
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == more.get(name, [])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert not {"privileged", "pid", "ipc", "network_mode", "devices"} & set(service)
    assert not any("docker.sock" in volume for volume in service.get("volumes", []))


@each_service
def test_services_have_health_checks_and_limits(name: str) -> None:
    service = SERVICES[name]
    limits = service["deploy"]["resources"]["limits"]
    assert {"cpus", "memory", "pids"} == set(limits)
    assert service["restart"].startswith(("unless-stopped", "on-failure"))
    if name == "bucket":  # it ends
        assert service["healthcheck"] == {"disable": True}
    else:
        assert service["healthcheck"]["test"][0] == "CMD"
    for other, wanted in service.get("depends_on", {}).items():
        ends = other == "bucket"
        condition = "service_completed_successfully" if ends else "service_healthy"
        assert wanted == {"condition": condition}


def test_only_the_proxy_publishes_a_port() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["entry"]
    assert {port.partition(":")[0] for port in SERVICES["entry"]["ports"]} == {"80", "443"}
    open_networks = {name for name, one in COMPOSE["networks"].items() if not one.get("internal")}
    reached = {name for name, one in SERVICES.items() if open_networks & set(one["networks"])}
    assert reached == {"entry", "code"}  # code fetches raw files and models
    assert not set(SERVICES["entry"]["networks"]) & set(SERVICES["code"]["networks"])
    assert "store" not in SERVICES["webserver"]["networks"]


@each_service
def test_a_secret_comes_from_the_environment_and_has_no_default(name: str) -> None:
    for key, value in SERVICES[name].get("environment", {}).items():
        if SECRET.search(key):
            assert REQUIRED.search(value), key
        else:
            assert not re.search(r"\$\{[A-Z0-9_]*(PASSWORD|SECRET|KEY)", str(value)), key


def test_the_example_lists_every_variable_without_a_value() -> None:
    text = (INFRA / "compose.yaml").read_text()
    asked = set(re.findall(r"\$\{([A-Z0-9_]+)", text))
    lines = (INFRA / ".env.example").read_text().splitlines()
    given = [line for line in lines if line and not line.startswith("#")]
    assert all(line.endswith("=") for line in given)
    optional = {"CODE_CPUS", "CODE_MEMORY"}  # with a default in their place
    assert {line.removesuffix("=") for line in given} == asked - optional
    assert "/infra/.env" in (ROOT / ".gitignore").read_text().splitlines()


def test_both_pages_require_a_password_and_do_not_forward_it() -> None:
    text = (INFRA / "Caddyfile").read_text()
    assert re.search(r"\(guarded\) \{\s+basic_auth \{\s+import \{\$ENTRY_USERS_FILE\}", text)
    sites = re.findall(r"^(\S+)\.\{\$DOMAIN\} \{\n(.*?)^\}", text, flags=re.DOTALL | re.MULTILINE)
    assert [name for name, _ in sites] == ["dagster", "mlflow"]
    for _, block in sites:
        assert block.strip().startswith("import guarded")
        assert "header_up -Authorization" in block
    environment = SERVICES["entry"]["environment"]
    assert environment["WEBSERVER"] == "webserver:3000"
    assert environment["MLFLOW"] == "mlflow:5000"


def test_telemetry_is_off_in_the_image() -> None:
    image = (INFRA / "Dockerfile").read_text()
    assert {"DO_NOT_TRACK=1", "MLFLOW_DISABLE_TELEMETRY=true"} <= set(image.split())


def test_the_image_is_pinned_and_runs_without_root() -> None:
    lines = (INFRA / "Dockerfile").read_text().splitlines()
    commands = [line.split() for line in lines if line and not line.startswith(("#", " "))]
    bases = [words[1] for words in commands if words[0] == "FROM"]
    assert bases == ["docker.io/library/python:${PYTHON}"] * 2
    (python,) = (
        words[1] for words in commands if words[0] == "ARG" and words[1] != 'TORCH_INDEX=""'
    )
    assert re.fullmatch(r"PYTHON=\d+\.\d+\.\d+-slim-\w+", python)
    assert ["USER", "10001:10001"] in commands
    assert any(words[0] == "HEALTHCHECK" for words in commands)
    assert not any(words[0] == "ADD" for words in commands)
    installs = [line for line in lines if "pip install" in line]
    assert all("constraint" in line or "--requirement torch.txt" in line for line in installs)


def test_the_image_contains_only_allowed_files() -> None:
    rules = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert rules[0] == "*"
    let_in = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    assert all(list(ROOT.glob(path)) for path in let_in)
    assert not {".git", "data", "infra/.env", "infra"} & set(let_in)


def test_versions_are_pinned_alike_everywhere() -> None:
    """A tag of an image is written in one place, or is the same in all."""
    found: dict[str, set[str]] = {}
    for file in [*INFRA.rglob("*.yaml")]:
        for image, tag in re.findall(r"image: (?:\S*/)?([a-z]+):(\S+)", file.read_text()):
            found.setdefault(image, set()).add(tag)
    values = yaml.safe_load((INFRA / "kubernetes/values.yaml").read_text())
    found["postgres"].add(values["postgresql"]["image"]["tag"])
    found["llmsrec"].add(values["dagsterWebserver"]["image"]["tag"])
    assert {image: len(tags) for image, tags in found.items() if len(tags) > 1} == {}
    project = (ROOT / "pyproject.toml").read_text()
    assert re.search(r'^version = "(.+)"', project, re.MULTILINE)[1] in found["llmsrec"]  # type: ignore[index]
