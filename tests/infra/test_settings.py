"""Dagster's settings are one text, with Postgres behind it where there is one; the image joins the same files."""

from pathlib import Path

import pytest
import yaml

from orchestration.instance import prepare, settings

INFRA = Path(__file__).parents[2] / "infra"


def test_postgres_settings_extend_the_default_ones() -> None:
    files, both = yaml.safe_load(settings(postgres=False)), yaml.safe_load(settings(postgres=True))
    assert set(both) - set(files) == {"storage", "compute_logs"}
    assert {name: both[name] for name in files} == files
    database = both["storage"]["postgres"]["postgres_db"]
    assert all(set(value) == {"env"} for name, value in database.items() if name != "scheme")


def test_a_home_is_prepared_for_where_history_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    for host, postgres in (("", False), ("db", True)):
        monkeypatch.setenv("DAGSTER_POSTGRES_HOST", host)
        assert (prepare() / "dagster.yaml").read_text() == settings(postgres=postgres)


def test_the_image_joins_the_same_files() -> None:
    image = (INFRA / "Dockerfile").read_text()
    assert "cat infra/dagster.yaml infra/storage.yaml > /tmp/dagster.yaml" in image
    joined = "".join((INFRA / name).read_text() for name in ("dagster.yaml", "storage.yaml"))
    assert joined == settings(postgres=True)
