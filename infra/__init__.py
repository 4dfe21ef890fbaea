"""Deployment files, and the same services as local processes (`python -m infra.stack`)."""
