"""Everything that can go wrong between an image and its score.

ModelError
├── ImageError        this array or file cannot be scored
├── CheckpointError   an encoder file that is not what it claims to be
├── HeadError         a head whose hash, settings or encoders do not match
├── UnknownScorer     no scorer has this name
└── EngineError       the engine asked for cannot run here

Impossible values in a frozen dataclass of settings are a ValueError, as everywhere in Python:
`require`.
"""


class ModelError(Exception):
    """Base of every error raised by the ``models`` package."""


class ImageError(ModelError):
    """An array or image file that cannot be scored; says shape, dtype and what is expected."""


class CheckpointError(ModelError):
    """An encoder file that cannot be used; names the keys or tensors that are wrong."""


class HeadError(ModelError):
    """A head that must not be used with these encoders or settings; says which differ."""


class UnknownScorer(ModelError):  # noqa: N818
    """No scorer has this name; lists those that exist."""


class EngineError(ModelError):
    """The engine asked for cannot run on this machine."""


def require(condition: bool, message: str) -> None:
    """Raise ValueError with this message unless the condition holds."""
    if not condition:
        raise ValueError(message)
