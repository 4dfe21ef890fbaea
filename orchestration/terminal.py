"""A Dagster logger for the terminal: a line for each start and end of a step, and the step's own lines."""

import logging
from typing import Any

import dagster as dg


def line_of(record: logging.LogRecord) -> str:
    """An event as one line; empty for events that are not shown."""
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
        metadata = event.step_materialization_data.materialization.metadata
        return f"✓ {step}: {metadata['outcome'].value}, {metadata['seconds'].value} s"
    if event.event_type == dg.DagsterEventType.ENGINE_EVENT and step:
        pool = event.engine_event_data.metadata.get("pool")  # of a step that waits for a slot
        return f"    {step} waits for a slot in the pool {pool.value}" if pool else ""
    return ""


class TerminalHandler(logging.Handler):
    """Prints non-empty lines to stdout."""

    def emit(self, record: logging.LogRecord) -> None:
        if line := line_of(record):
            print(line, flush=True)


def _logger(_init: dg.InitLoggerContext) -> logging.Logger:
    logger = logging.Logger("terminal", level=logging.DEBUG)
    logger.addHandler(TerminalHandler())
    return logger


terminal_logger = dg.LoggerDefinition(
    _logger, description="One line for each start and end of a step, and the step's own lines"
)
