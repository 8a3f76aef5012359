"""The errors that end a search or refuse a resource, by who has to act."""

from dataclasses import dataclass


class QuantunerError(Exception):
    """Base of every error that is raised on purpose; its text gives the rule, the value and the remedy."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a resource."""

    path: str
    """The field, as `spec.workers`."""
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


class InvalidResourceError(QuantunerError):
    """The resource breaks the CRD's schema or rules; the user has to correct it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(str(p) for p in problems))
        self.problems = problems


class SearchError(QuantunerError):
    """The search cannot start or go on until the user acts; becomes the Failed condition.

    `reason` is one of the failure reasons in `quantuner.api.conditions`.
    """

    def __init__(self, reason: str, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.traceback = traceback

    def __reduce__(self) -> tuple[type["SearchError"], tuple[str, str, str]]:
        """Crosses MPI whole; an exception's own way would pass `args` alone."""
        return SearchError, (self.reason, self.message, self.traceback)


class MissingArgumentError(SearchError, ValueError):
    """What `fit` and a task must both be given: a `ValueError` for a caller, the Failed condition of a resource."""


class JournalError(QuantunerError):
    """A journal is damaged, of another version, or of another search."""


class ArtifactError(QuantunerError):
    """A saved model that is not what was saved."""


class AbandonedError(BaseException):
    """Breaks off a trial whose result no longer matters.

    No `Exception`, so that the user's evaluation, which it passes through, does not take it for its own.
    """
