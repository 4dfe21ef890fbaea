"""What runs the project elsewhere, and the same services here as plain processes (`python -m infra.stack`)."""
