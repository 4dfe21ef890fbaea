"""A Dagster logger for the terminal: a line for each start and end of a step, and the step's own lines."""

import logging
import sys
from typing import Any

import dagster as dg


class TerminalFormatter(logging.Formatter):
    """Formats an event as one line; empty for events that are not shown."""

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
    """The line of a step that waits for a slot in a pool; empty for other engine events."""
    pool = event.engine_event_data.metadata.get("pool")
    return f"    {step} waits for a slot in the pool {pool.value}" if pool else ""


class TerminalHandler(logging.StreamHandler[Any]):
    """Prints non-empty lines to stdout."""

    def emit(self, record: logging.LogRecord) -> None:
        if line := self.format(record):
            print(line, file=sys.stdout, flush=True)


def _logger(_init: dg.InitLoggerContext) -> logging.Logger:
    logger = logging.Logger("terminal", level=logging.DEBUG)
    handler = TerminalHandler()
    handler.setFormatter(TerminalFormatter())
    logger.addHandler(handler)
    return logger


terminal_logger = dg.LoggerDefinition(
    _logger, description="One line for each start and end of a step, and the step's own lines"
)
