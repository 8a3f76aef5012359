"""A ConfigMap with one writer: the process that has taken it last. Another one, started earlier, is refused."""

from collections.abc import Mapping

from quantuner.api.errors import QuantunerError
from quantuner.distributed.configmap import ConfigMaps, ConflictError, Stored


class SupersededError(QuantunerError):
    """Another process has taken the ConfigMap, and with it the search."""


class Held:
    """One ConfigMap, as this process writes it."""

    def __init__(self, configmaps: ConfigMaps, name: str, writer: str) -> None:
        """`writer` names this process, and no other one ever."""
        self.name = name
        self._configmaps, self._writer = configmaps, writer
        self._version = ""

    def take(self) -> Mapping[str, str]:
        """Makes this process the writer, whoever was it before; returns the data.

        Raises `ApiUnavailableError` or `ApiRefusedError`; so does `add`.
        """
        return self._write({}, self._configmaps.read(self.name).version)

    def add(self, data: Mapping[str, str]) -> Mapping[str, str]:
        """Sets these keys, leaves the others, and returns all there are. Sending the same twice does no harm.

        Raises `SupersededError` where another process has taken the ConfigMap. One that was deleted and created anew
        is taken again.
        """
        try:
            return self._write(data, self._version)
        except ConflictError:
            return self._write(data, self._own().version)

    def look(self) -> Mapping[str, str]:
        """What the server has, with `add`'s errors."""
        return self._own().data

    def _own(self) -> Stored:
        found = self._configmaps.read(self.name)
        if found.writer not in (self._writer, ""):
            raise SupersededError(
                f"ConfigMap {self.name} is now written by {found.writer}, and no longer by {self._writer}: another "
                "launcher of this search was started, which goes on with it; this one ends"
            )
        return found

    def _write(self, data: Mapping[str, str], version: str) -> Mapping[str, str]:
        stored = self._configmaps.write(self.name, data, writer=self._writer, version=version)
        self._version = stored.version
        return stored.data
