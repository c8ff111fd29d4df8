"""The reference of settings and metrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from bursar import telemetry
from bursar.config import (
    ENV_PREFIX,
    GrantSettings,
    ProviderSettings,
    Settings,
    UpstreamSettings,
)

# Settings that the environment has no room for.
_TABLES = ("upstreams", "sso_providers")


def settings() -> Iterator[str]:
    """Every setting of the server."""
    yield "| setting | environment | default | what it is |"
    yield "|---|---|---|---|"
    for name, field in Settings.model_fields.items():
        variable = "" if name in _TABLES else f"`{ENV_PREFIX}{name.upper()}`"
        yield f"| `{name}` | {variable} | {_default(field)} | {_sentence(field)} |"


def upstreams() -> Iterator[str]:
    """Every setting of one upstream."""
    return _table_of(UpstreamSettings)


def providers() -> Iterator[str]:
    """Every setting of one sign-in service."""
    return _table_of(ProviderSettings)


def grants() -> Iterator[str]:
    """Every setting of what a group of a sign-in service means."""
    return _table_of(GrantSettings)


def counters() -> Iterator[str]:
    """Every counter."""
    yield "| counter | labels | what it counts |"
    yield "|---|---|---|"
    for name, text, labels in telemetry.COUNTERS:
        shown = ", ".join(f"`{label}`" for label in labels)
        yield f"| `{name}_total` | {shown} | {text} |"


def gauges() -> Iterator[str]:
    """Every gauge."""
    yield "| gauge | what it shows |"
    yield "|---|---|"
    for name, text in telemetry.GAUGES:
        yield f"| `{name}` | {text} |"


def _table_of(model: type[BaseModel]) -> Iterator[str]:
    yield "| setting | default | what it is |"
    yield "|---|---|---|"
    for name, field in model.model_fields.items():
        yield f"| `{name}` | {_default(field)} | {_sentence(field)} |"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ((), {}) or isinstance(value, SecretStr):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{value}`"


def _sentence(field: FieldInfo) -> str:
    text = (field.description or "").replace("|", "\\|")
    least, most = _bounds(field.metadata)
    if least is not None and most is not None:
        return f"{text} {least} to {most}."
    return f"{text} {least} or more." if least is not None else text


def _bounds(constraints: Iterable[object]) -> tuple[str | None, str | None]:
    found: dict[str, str] = {}
    for each in constraints:
        for name in ("ge", "gt", "le"):
            bound = getattr(each, name, None)
            if bound is not None:
                plain = int(bound) if bound == int(bound) else bound
                found[name] = f"Above {plain}" if name == "gt" else f"{plain:,}"
    return found.get("ge", found.get("gt")), found.get("le")
