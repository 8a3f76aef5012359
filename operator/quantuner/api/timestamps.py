"""Wall-clock times as Kubernetes writes them. Durations never come from these."""

import datetime


def utc_now() -> str:
    """RFC 3339, UTC, whole seconds."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def since_1970(time: str) -> float:
    """Seconds, of an RFC 3339 time."""
    return datetime.datetime.fromisoformat(time).timestamp()
