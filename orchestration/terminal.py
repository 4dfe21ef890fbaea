"""A Dagster logger for the terminal: one line for each asset that has ended, and the latest message of the running one.

Every message of every step goes to a log file.
"""

import logging
import shutil
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import dagster as dg

EVERY = 30.0  # seconds between messages of a running asset where lines cannot be replaced


class Screen:
    """Lines that stay and a last line that changes; where the output is no terminal, some states of that line."""

    def __init__(self, output: TextIO, every: float = EVERY) -> None:
        self.output, self.every = output, every
        self.replaces = output.isatty()
        self.last = time.monotonic()

    def keep(self, line: str) -> None:
        """Print a line that stays."""
        self.output.write(f"\r\x1b[2K{line}\n" if self.replaces else f"{line}\n")
        self.output.flush()
        self.last = time.monotonic()

    def change(self, line: str) -> None:
        """Show the first line of the state of what is running."""
        line = line.partition("\n")[0]
        if self.replaces:
            self.output.write(f"\r\x1b[2K{line[: shutil.get_terminal_size().columns - 1]}")
            self.output.flush()
        elif time.monotonic() - self.last >= self.every:
            self.keep(line)


class TerminalHandler(logging.Handler):
    """Writes messages to a file and shows some of them."""

    def __init__(self, screen: Screen, file: Path) -> None:
        super().__init__()
        self.screen, self.file = screen, file
        self.step = ""

    def emit(self, record: logging.LogRecord) -> None:
        meta: dict[str, Any] = getattr(record, "dagster_meta", {})
        event: dg.DagsterEvent | None = meta.get("dagster_event")
        message = str(meta.get("orig_message", record.getMessage())).strip()
        if event is not None:
            self._show_event(event)
            return
        self._log(message)
        if record.levelno >= logging.WARNING:
            self.screen.keep(f"  {message}")
        else:
            named = message.startswith(self.step)  # as the progress of a training is
            self.screen.change(f"▶ {message}" if named else f"▶ {self.step}  {message}")

    def _log(self, message: str) -> None:
        with self.file.open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%H:%M:%S')} {message}\n")

    def _show_event(self, event: dg.DagsterEvent) -> None:
        step = event.step_key or ""
        if event.event_type == dg.DagsterEventType.STEP_START:
            self.step = step
            self._log(f"▶ {step}")
            self.screen.change(f"▶ {step}")
        elif event.event_type == dg.DagsterEventType.STEP_FAILURE:
            self.screen.keep(f"✗ {step} failed")
        elif event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
            metadata = event.step_materialization_data.materialization.metadata
            self.screen.keep(ended(step, {name: value.value for name, value in metadata.items()}))
        elif event.event_type == dg.DagsterEventType.ENGINE_EVENT and step:
            pool = event.engine_event_data.metadata.get("pool")
            if pool is not None:
                self.screen.change(f"▶ {step}  waits for a slot in the pool {pool.value}")


def ended(step: str, metadata: dict[str, Any]) -> str:
    """The line of an asset that was materialized."""
    took = f"{metadata['seconds']:.1f} s"
    return (
        f"✓ {step:16} {took:>8}  {metadata['outcome']:9}  {metadata.get('headline', '')}".rstrip()
    )


def _logger(init: dg.InitLoggerContext) -> logging.Logger:
    logger = logging.Logger("terminal", level=logging.DEBUG)
    file = Path(init.logger_config["file"])
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("")
    logger.addHandler(TerminalHandler(Screen(sys.stdout), file))
    return logger


terminal_logger = dg.LoggerDefinition(
    _logger,
    config_schema={"file": dg.Field(str, description="Log file, replaced by each run")},
    description="One line for each asset; every message goes to a file",
)
