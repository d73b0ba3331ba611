"""One tree of errors. Each says what was wrong, in which file, and what to do, and carries its exit code."""

from __future__ import annotations

from os import PathLike


class DermsegError(Exception):
    """Base of every error that dermseg raises on purpose.

    Parameters
    ----------
    message
        What was wrong, with the value.
    file
        The file it was found in, where there is one.
    hint
        What the user can do about it.
    """

    exit_code = 1

    def __init__(
        self, message: str, *, file: str | PathLike[str] | None = None, hint: str | None = None
    ) -> None:
        self.message = message
        self.file = None if file is None else str(file)
        self.hint = hint
        super().__init__(str(self))

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}" if self.file else self.reason

    @property
    def reason(self) -> str:
        """What was wrong and what to do, for a row that names the file already."""
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.file, self.hint))


def _rebuild(cls: type[DermsegError], message: str, file: str | None, hint: str | None) -> DermsegError:
    return cls(message, file=file, hint=hint)


class ImageError(DermsegError):
    """An image cannot be read: damaged, too large, or of an unknown kind."""


class MaskError(DermsegError):
    """A mask is not binary, is empty, or does not fit its image."""


class ModelError(DermsegError):
    """A bundle or checkpoint is missing, damaged or does not fit."""


class UnknownModelError(ModelError):
    """No model has the name or path that was given: a wrong request, where a damaged bundle is none."""

    exit_code = 2


class DownloadError(DermsegError):
    """A file cannot be fetched: the server or the line, not the request, is to blame."""


class TrainingError(DermsegError):
    """A training run cannot go on."""


class ScoringError(DermsegError):
    """The images were compared, and none could be scored."""


class UsageError(DermsegError):
    """The request itself is wrong: bad option, missing input, refused output folder."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration value is unknown or out of range."""


class DataError(UsageError):
    """A data set, index or split file is missing or not what it should be."""


class MissingExtraError(UsageError):
    """A feature needs an optional dependency that is not installed."""

    def __init__(self, feature: str, extra: str) -> None:
        self.extra = extra
        super().__init__(f"{feature} needs an optional dependency", hint=f'pip install "dermseg[{extra}]"')

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild_missing, (self.message.removesuffix(" needs an optional dependency"), self.extra))


def _rebuild_missing(feature: str, extra: str) -> MissingExtraError:
    return MissingExtraError(feature, extra)
