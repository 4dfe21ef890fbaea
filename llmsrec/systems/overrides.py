"""A section of parameters with some of its values changed."""

from typing import Any

Values = dict[str, Any]


def override(section: Values, changes: Values) -> Values:
    """A section with changed values; a mapping changes only the keys that it names."""
    changed = {
        name: override(section[name], value)
        if isinstance(value, dict) and isinstance(section.get(name), dict)
        else value
        for name, value in changes.items()
    }
    return {**section, **changed}
