"""Where a client's settings come from: arguments, the environment, a file, in this order."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from mstkd_client._errors import InvalidSettings
from mstkd_client._retry import Retry
from mstkd_client._settings import KINDS, Settings, check_kind

CONFIG_VARIABLE: Final = "MSTKD_CONFIG"

_BOOLEANS: Final = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
_NAMES: Final = tuple(f.name for f in fields(Settings) if f.name not in ("on_call", "retry"))


def resolve(
    url: str | None, options: Mapping[str, Any], environ: Mapping[str, str] | None = None
) -> Settings:
    """Put arguments, environment and configuration file together.

    Args:
        url: The first argument of a client, or None.
        options: Its keyword arguments; None stands for "not given".
        environ: The environment; the process's own by default.

    Raises:
        InvalidSettings: A setting is unknown, malformed or contradicts another; the text says
            where it came from.
    """
    return Settings(**_values(url, options, os.environ if environ is None else environ))


def portable(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return keyword arguments of `FaceClient` that need neither environment nor file any more.

    Args:
        options: Its keyword arguments; the rest is read from this process's surroundings.

    Raises:
        InvalidSettings: As `resolve` raises it.
    """
    rest = dict(options)
    return _values(rest.pop("url", None), rest, os.environ)


def _values(
    url: str | None, options: Mapping[str, Any], environ: Mapping[str, str]
) -> dict[str, Any]:
    given = {name: value for name, value in options.items() if value is not None}
    config = given.pop("config", None) or environ.get(CONFIG_VARIABLE)
    values = _from_file(Path(config)) if config else {}
    values |= _from_environment(environ)
    unknown = sorted(set(given) - set(_NAMES) - {"on_call", "retry"})
    if unknown:
        raise InvalidSettings(f"{unknown[0]!r} is no setting of a client")
    for name, value in given.items():
        values[name] = os.fspath(value) if isinstance(value, os.PathLike) else value
        if name in _NAMES:
            check_kind(name, values[name], KINDS.get(name, str))
    if url is not None:
        check_kind("url", url, str)
        values["url"] = url
    return values


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in _NAMES:
        variable = f"MSTKD_{name.upper()}"
        if text := environ.get(variable):
            kind = KINDS.get(name, str)
            try:
                found[name] = _BOOLEANS[text.lower()] if kind is bool else kind(text)
            except (ValueError, KeyError) as error:
                wanted = {bool: "true or false", int: "a whole number"}.get(kind, "a number")
                raise InvalidSettings(f"${variable} must be {wanted}, got {text!r}") from error
    return found


def _from_file(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"{path}: cannot be read ({error}).") from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidSettings(f"{path}: not a TOML file ({error}).") from error
    unknown = sorted(set(values) - set(_NAMES) - {"retry"})
    if unknown:
        raise InvalidSettings(f"{path}: {unknown[0]!r} is no setting of a client.")
    for name, value in values.items():
        check_kind(f"{path}: {name}", value, dict if name == "retry" else KINDS.get(name, str))
    try:
        if "retry" in values:
            values["retry"] = Retry(**values["retry"])
    except TypeError as error:
        raise InvalidSettings(f"{path}: [retry] {error}.") from error
    return values
