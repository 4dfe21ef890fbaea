"""Shrink a failing input: first by lines, then by bytes."""

import time
from collections.abc import Callable


def shrink(content: bytes, fails: Callable[[bytes], bool], seconds: float = 20.0) -> bytes:
    """The smallest content that still fails, found within `seconds`."""
    end = time.monotonic() + seconds
    lines = content.splitlines(keepends=True)
    content = b"".join(_fewer(lines, lambda parts: fails(b"".join(parts)), end))
    letters = [content[place : place + 1] for place in range(len(content))]
    return b"".join(_fewer(letters, lambda parts: fails(b"".join(parts)), end))


def _fewer(parts: list[bytes], fails: Callable[[list[bytes]], bool], end: float) -> list[bytes]:
    """Remove runs of parts while the rest still fails; runs get shorter, down to one part."""
    size = max(1, len(parts) // 2)
    while parts:
        place, before = 0, len(parts)
        while place < len(parts):
            if time.monotonic() > end:
                return parts
            fewer = parts[:place] + parts[place + size :]
            if fails(fewer):
                parts = fewer
            else:
                place += size
        if size == 1 and len(parts) == before:
            break
        size = max(1, size // 2)
    return parts
