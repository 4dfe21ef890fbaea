"""A Dagster run as a person follows it: a line when a step starts and ends, and the step's own lines."""

import logging
import sys
from typing import Any

import dagster as dg


class Lines(logging.Formatter):
    """Empty for events that say nothing to a person."""

    def format(self, record: logging.LogRecord) -> str:
        meta: dict[str, Any] = getattr(record, "dagster_meta", {})
        event: dg.DagsterEvent | None = meta.get("dagster_event")
        if event is None:
            return f"    {meta.get('orig_message', record.getMessage())}"
        step = event.step_key or ""
        if event.event_type == dg.DagsterEventType.STEP_START:
            return f"▶ {step}"
        if event.event_type == dg.DagsterEventType.STEP_FAILURE:
            return f"✗ {step} failed"
        if event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
            return _materialised(step, event)
        if event.event_type == dg.DagsterEventType.ENGINE_EVENT and step:
            return _blocked(step, event)
        return ""


def _materialised(step: str, event: dg.DagsterEvent) -> str:
    metadata = event.step_materialization_data.materialization.metadata
    outcome, seconds = metadata["outcome"].value, metadata["seconds"].value
    return f"✓ {step}: {outcome}, {seconds} s"


def _blocked(step: str, event: dg.DagsterEvent) -> str:
    """By the pool that other runs' steps fill."""
    pool = event.engine_event_data.metadata.get("pool")
    return f"    {step} waits for a place in the pool {pool.value}" if pool else ""


class LinesHandler(logging.StreamHandler[Any]):
    def emit(self, record: logging.LogRecord) -> None:
        if line := self.format(record):
            print(line, file=sys.stdout, flush=True)


def _logger(_init: dg.InitLoggerContext) -> logging.Logger:
    logger = logging.Logger("terminal", level=logging.DEBUG)
    handler = LinesHandler()
    handler.setFormatter(Lines())
    logger.addHandler(handler)
    return logger


terminal_logger = dg.LoggerDefinition(
    _logger, description="One line for each start and end of a step, and the step's own lines"
)
