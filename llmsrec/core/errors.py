"""Errors that a user can fix, as one tree.

LLMSRecError
├── ConfigError     a key of params.yaml is unknown, missing or invalid
├── DataError       interactions or metadata are invalid
├── SourceError     raw files could not be fetched or verified
└── ArtifactError   a folder that an earlier step writes is missing or damaged
"""


class LLMSRecError(Exception):
    """Base class; the message says what is wrong, where, what was expected and what to do."""


class ConfigError(LLMSRecError):
    pass


class DataError(LLMSRecError):
    pass


class SourceError(LLMSRecError):
    pass


class ArtifactError(LLMSRecError):
    pass
