"""What can go wrong, as one tree.

LLMSRecError
├── ConfigError     a key of params.yaml is unknown, missing or impossible
├── DataError       interactions or metadata are not what they must be
├── SourceError     raw files could not be fetched or verified
└── ArtifactError   a folder that an earlier step should have written is missing or damaged
"""


class LLMSRecError(Exception):
    """Base of every error that a user can mend; its text says what, where and what to do."""


class ConfigError(LLMSRecError):
    pass


class DataError(LLMSRecError):
    pass


class SourceError(LLMSRecError):
    pass


class ArtifactError(LLMSRecError):
    pass
