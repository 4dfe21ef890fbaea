"""What `dvc.yaml` runs: each stage parses arguments, loads, makes one call, saves."""
