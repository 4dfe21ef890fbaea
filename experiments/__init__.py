"""Questions that take longer than a pipeline run: each a command that leaves a metrics.json, as `evaluation` does."""
