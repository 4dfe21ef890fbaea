"""Dagster over DVC: the assets are derived from dvc.yaml."""
