"""What the clients of a server share: their settings, and the watch over their calls."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mstkd_client._observe import Call
from mstkd_client._resolve import resolve


class BaseClient:
    """Settings, checked; calls, measured.

    Args:
        url: As `Settings.url`.
        options: As `Settings`.

    Raises:
        InvalidSettings: A setting is malformed.
    """

    def __init__(self, url: str | None, options: Mapping[str, Any]) -> None:
        self._settings = resolve(url, options)

    @property
    def url(self) -> str:
        """The server's address."""
        return self._settings.url

    @property
    def model_name(self) -> str:
        """The model that embeds."""
        return self._settings.model

    @property
    def model_version(self) -> str:
        """The version asked for, or "" for the one that the server chooses."""
        return self._settings.model_version

    @property
    def timeout(self) -> float:
        """Seconds that one request may take."""
        return self._settings.timeout

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r}, model_name={self.model_name!r})"

    @contextmanager
    def _observed(self, method: str) -> Iterator[Call]:
        """Measure one call, and report it however it ends."""
        settings = self._settings
        call = Call(method, settings.model, tracing=settings.tracing, on_call=settings.on_call)
        try:
            yield call
        except BaseException as error:
            call.end(error)
            raise
        call.end()
