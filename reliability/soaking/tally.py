"""The counts and findings of a soak."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Tally:
    """What was done, and what was found."""

    iterations: int = 0
    runs: int = 0
    requests: int = 0  # to S3, through the proxy
    files_read: int = 0  # by the file watcher
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)  # injected, by step and kind
    missed: int = 0  # not injected: the step had ended or did not run
    s3_faults: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    interactions: int = 0

    def document(self) -> dict[str, Any]:
        """All counts, for JSON."""
        faults = [
            {"step": step, "kind": kind, "times": times}
            for (step, kind), times in sorted(self.faults.items())
        ]
        return {**vars(self), "faults": faults, "s3_faults": dict(sorted(self.s3_faults.items()))}

    def line(self, findings: int) -> str:
        """A summary after an iteration that had so many findings."""
        return (
            f"iteration {self.iterations}: {self.interactions:,} interactions, {self.runs} runs, "
            f"{sum(self.faults.values())} faults injected, {sum(self.s3_faults.values())} S3 faults in "
            f"{self.requests:,} requests; {f'{findings} FINDINGS' if findings else 'no findings'}"
        )
