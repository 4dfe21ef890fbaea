"""Rules of the manifests and of the values of Dagster's chart."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra" / "kubernetes"
VALUES: dict[str, Any] = yaml.safe_load((FOLDER / "values.yaml").read_text())
GPU: dict[str, Any] = yaml.safe_load((FOLDER / "values-gpu.yaml").read_text())
MANIFESTS: list[dict[str, Any]] = [
    document
    for name in ("namespace", "mlflow", "network")
    for document in yaml.safe_load_all((FOLDER / f"{name}.yaml").read_text())
]
CODE = VALUES["dagster-user-deployments"]["deployments"][0]
RUN = VALUES["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [one for one in MANIFESTS if one["kind"] == kind]


def pods() -> dict[str, tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The security context of each pod that is ours, and its containers' settings."""
    (mlflow,) = of_kind("Deployment")
    spec = mlflow["spec"]["template"]["spec"]
    found = {"mlflow": (spec["securityContext"], spec["containers"])}
    for name, one in {
        "webserver": VALUES["dagsterWebserver"],
        "daemon": VALUES["dagsterDaemon"],
        "code": CODE,
    }.items():
        found[name] = (one["podSecurityContext"], [one, *one.get("initContainers", [])])
    found["run"] = (RUN["podSpecConfig"]["securityContext"], [RUN["containerConfig"]])
    return found


def test_pods_have_no_unneeded_privileges() -> None:
    """The standard `restricted`, which the namespace enforces, and a file system that is read only."""
    for name, (pod, containers) in pods().items():
        assert pod["runAsNonRoot"] is True, name
        assert pod["runAsUser"] == 10001, name
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in containers:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert {"requests", "limits"} == set(container["resources"]), name
    (namespace,) = of_kind("Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_network_policies_deny_all_but_the_named_roles() -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind("NetworkPolicy")}
    assert policies["nothing"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    named = set(re.findall(r"[a-z]+", " ".join(roles(policies))))
    (mlflow,) = of_kind("Deployment")
    given = {
        mlflow["spec"]["template"]["metadata"]["labels"]["llmsrec/role"],
        VALUES["dagsterWebserver"]["labels"]["llmsrec/role"],
        VALUES["dagsterDaemon"]["labels"]["llmsrec/role"],
        CODE["labels"]["llmsrec/role"],
        VALUES["runLauncher"]["config"]["k8sRunLauncher"]["labels"]["llmsrec/role"],
    }
    assert named == given
    assert {one["metadata"]["namespace"] for one in of_kind("NetworkPolicy")} == {"llmsrec"}


def roles(found: Any) -> list[str]:
    """Every value of the label llmsrec/role that is selected anywhere below."""
    if isinstance(found, list):
        return [role for one in found for role in roles(one)]
    if not isinstance(found, dict):
        return []
    if found.get("key") == "llmsrec/role":
        return list(found["values"])
    own = [found["llmsrec/role"]] if "llmsrec/role" in found else []
    return own + [role for one in found.values() for role in roles(one)]


def test_both_pages_have_tls_and_a_password() -> None:
    (mlflow,) = of_kind("Ingress")
    (middleware,) = of_kind("Middleware")
    name = f"{middleware['metadata']['namespace']}-{middleware['metadata']['name']}@kubernetescrd"
    assert middleware["spec"]["basicAuth"] == {"secret": "llmsrec-entry", "removeHeader": True}
    for annotations in (mlflow["metadata"]["annotations"], VALUES["ingress"]["annotations"]):
        assert annotations["traefik.ingress.kubernetes.io/router.middlewares"] == name
        assert annotations["traefik.ingress.kubernetes.io/router.entrypoints"] == "websecure"
    assert mlflow["spec"]["tls"][0]["hosts"] == [mlflow["spec"]["rules"][0]["host"]]
    assert VALUES["ingress"]["dagsterWebserver"]["tls"]["enabled"] is True


def test_dagster_settings_equal_those_of_other_deployments() -> None:
    ours = yaml.safe_load((ROOT / "infra/dagster.yaml").read_text())
    concurrency, runs = VALUES["concurrency"], ours["concurrency"]["runs"]
    assert concurrency["enabled"] is True
    assert concurrency["runs"] == {
        "maxConcurrentRuns": runs["max_concurrent_runs"],
        "tagConcurrencyLimits": runs["tag_concurrency_limits"],
    }
    pools = ours["concurrency"]["pools"]
    assert concurrency["pools"] == {
        "granularity": pools["granularity"],
        "defaultLimit": pools["default_limit"],
    }
    for name in ("schedule", "sensor"):
        days = ours["retention"][name]["purge_after_days"]
        assert VALUES["retention"][name] == {"purgeAfterDays": days}
    assert VALUES["dagsterDaemon"]["runRetries"]["maxRetries"] == ours["run_retries"]["max_retries"]
    assert VALUES["telemetry"] == ours["telemetry"]
    storage = yaml.safe_load((ROOT / "infra/storage.yaml").read_text())["storage"]["postgres"]
    assert VALUES["postgresql"]["postgresqlScheme"] == storage["postgres_db"]["scheme"]


def test_a_gpu_is_requested_where_configured() -> None:
    run = GPU["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]
    assert run["containerConfig"]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert run["podSpecConfig"]["nodeSelector"]
    assert run["podSpecConfig"]["tolerations"][0]["key"] == "nvidia.com/gpu"
    assert "nvidia.com/gpu" not in RUN["containerConfig"]["resources"]["limits"]


def test_no_password_is_in_a_file() -> None:
    assert VALUES["generatePostgresqlPasswordSecret"] is False
    assert "postgresqlPassword" not in VALUES["postgresql"]
    assert of_kind("Secret") == []


def test_the_versions_of_dagster_and_its_chart_are_equal() -> None:
    pin = re.search(r'"dagster==([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert pin is not None
    assert f"version {pin[1]}" in (FOLDER / "values.yaml").read_text().splitlines()[0]
    assert f"--version {pin[1]}" in (ROOT / "infra/README.md").read_text()
