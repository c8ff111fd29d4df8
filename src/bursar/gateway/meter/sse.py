"""The meter in a stream of server-sent events: what may go on to the caller, and what was sold.

Owns line splitting, the usage in an event's top level, the end mark, in-band errors, the removal
of a usage event that the caller did not ask for, and the estimate where no usage came. Must not
know prices, sockets or time.

Only lines that can matter are decoded. Text that a model writes cannot pose as usage, error or
end: inside a JSON string its quotes are escaped and its line breaks too, and what is decoded counts
at its place in the event alone. A usage object is read within one `data:` line; an event spread
over several counts as content.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

import msgspec

from bursar.gateway.meter.usage import (
    UNREADABLE,
    Usage,
    UsageFields,
    decode_fields,
    judge,
    text_bytes,
    tokens_of_text,
)
from bursar.gateway.upstreams.port import UpstreamError

MAX_LINE = 1_048_576
SAMPLE_BYTES = 65_536

_BOM = b"\xef\xbb\xbf"
_NOTHING = (b"", b"null")

# Events that say by their type that the answer is whole, where no [DONE] follows.
_CLOSING_TYPES = (
    b'"response.completed"',
    b'"response.incomplete"',
    b'"response.failed"',
    b'"message_delta"',
)


class _Fate(Enum):
    FORWARDED = 1
    OPENING = 2
    DROPPED = 3


class _Event(msgspec.Struct):
    type: msgspec.Raw = msgspec.Raw()
    usage: msgspec.Raw = msgspec.Raw()
    choices: msgspec.Raw = msgspec.Raw()
    error: msgspec.Raw = msgspec.Raw()
    response: msgspec.Raw = msgspec.Raw()
    message: msgspec.Raw = msgspec.Raw()


class _Carrier(msgspec.Struct):
    usage: msgspec.Raw = msgspec.Raw()


class _Choice(msgspec.Struct, forbid_unknown_fields=True):
    index: int = 0
    delta: dict[str, str | None] = {}
    finish_reason: None = None
    logprobs: None = None


class _Counted(NamedTuple):
    """How many bytes of a stream have been read for text, the text's bytes, the events with any."""

    read: int
    text: int
    events: int

    def add(self, lines: Sequence[bytes]) -> _Counted:
        texts = [text_bytes(line[5:]) for line in lines if line.startswith(b"data:")]
        return _Counted(
            self.read + sum(map(len, lines)),
            self.text + sum(texts),
            self.events + sum(text > 0 for text in texts),
        )


_decode_event = msgspec.json.Decoder(_Event).decode
_decode_carrier = msgspec.json.Decoder(_Carrier).decode
_decode_choices = msgspec.json.Decoder(list[_Choice]).decode


class StreamMeter:
    """Reads one stream: `feed` each chunk, `finish` at its end.

    `usage` is the last report that made sense, `usage_faults` counts those that did not, `events`
    counts data events except the end mark; `is_done` and `has_error` tell how the stream ended.
    """

    __slots__ = (
        "_after_cr",
        "_boundary",
        "_counted",
        "_held",
        "_held_size",
        "_is_calm",
        "_is_dropping",
        "_is_in_data",
        "_is_started",
        "_opening",
        "_opening_size",
        "_sample",
        "_sample_room",
        "_size",
        "_start_fields",
        "_strips",
        "events",
        "has_error",
        "is_done",
        "usage",
        "usage_faults",
    )

    def __init__(self, *, strip_usage: bool = False) -> None:
        """Start a stream; with `strip_usage` the extra event that carries usage is removed."""
        self.usage: Usage | None = None
        self.usage_faults = 0
        self.events = 0
        self.is_done = False
        self.has_error = False
        self._strips = strip_usage
        # A chunk that ends with this leaves nothing open that a later line could change.
        self._boundary = b"\n\n" if strip_usage else b"\n"
        self._is_calm = False
        self._is_started = False
        # An incomplete last line.
        self._held: list[bytes] = []
        self._held_size = 0
        # Fields of an event whose data has not come: they go where its data goes.
        self._opening: list[bytes] = []
        self._opening_size = 0
        self._is_in_data = False
        self._is_dropping = False
        self._after_cr: _Fate | None = None
        self._start_fields: UsageFields | None = None
        # Of the first 64 KiB, what has been counted and what has not.
        self._counted = _Counted(0, 0, 0)
        self._sample: list[bytes] = []
        self._sample_room = SAMPLE_BYTES
        self._size = 0

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes and return those that may be forwarded now: whole lines only.

        Raises `UpstreamError` of kind `too_large` for a line above 1 MiB.
        """
        self._size += len(chunk)
        if self._sample_room > 0:
            self._sample.append(chunk[: self._sample_room])
            self._sample_room -= len(chunk)
        # `find` where `in` would read better: it is a third quicker, and this runs for every chunk.
        find = chunk.find
        if (
            self._is_calm
            and chunk.endswith(self._boundary)
            and find(b"\r") < 0
            and find(b"[DONE]") < 0
            and find(b'"error"') < 0
            and (find(b'"usage"') < 0 or _has_only_null_usage(chunk))
            and len(chunk) <= MAX_LINE
        ):
            self.events += chunk.count(b"\ndata:") + chunk.startswith(b"data:")
            return chunk
        return self._feed_lines(chunk) if chunk else b""

    def finish(self) -> bytes:
        """Return what was held back; call once, when the stream has ended, cut or whole."""
        out: list[bytes] = []
        if self._held:
            self._accept(self._unhold(), out)
        out += self._opening
        self._opening.clear()
        return b"".join(out)

    def estimate_output_tokens(self) -> int:
        """Estimate the tokens that a stream without usage carried.

        A token for every four bytes of generated text, and at least one for every event with text,
        both taken from the first 64 KiB and scaled up to the whole stream. May be asked under way:
        each line is counted once.
        """
        lines = b"".join(self._sample).splitlines(keepends=True)
        # The last line may go on: it is looked at again next time.
        is_open = bool(lines) and not lines[-1].endswith((b"\n", b"\r"))
        rest = lines.pop() if is_open else b""
        self._sample = [rest] if rest else []
        counted = self._counted = self._counted.add(lines)
        if self._size <= SAMPLE_BYTES:
            counted = counted.add([rest])
        if not counted.read:
            return tokens_of_text(self._size)
        size = -(-counted.text * self._size // counted.read)
        events = -(-counted.events * self._size // counted.read)
        return max(tokens_of_text(size), events)

    def _feed_lines(self, chunk: bytes) -> bytes:
        out: list[bytes] = []
        if self._after_cr is not None:
            chunk = self._finish_cr(chunk, self._after_cr, out)
        if b"\n" not in chunk and b"\r" not in chunk:
            self._hold(chunk)
        else:
            if self._held:
                chunk = self._unhold() + chunk
            lines = chunk.splitlines(keepends=True)
            if not lines[-1].endswith((b"\n", b"\r")):
                self._hold(lines.pop())
            for line in lines:
                fate = self._accept(line, out)
            if chunk.endswith(b"\r"):
                self._after_cr = fate
        self._is_calm = not (self._held or self._opening or self._is_in_data or self._after_cr)
        return b"".join(out)

    def _finish_cr(self, chunk: bytes, fate: _Fate, out: list[bytes]) -> bytes:
        # The line ended with CR at the end of a chunk. An LF now is the rest of that line's end.
        self._after_cr = None
        if not chunk.startswith(b"\n"):
            return chunk
        if fate is _Fate.FORWARDED:
            out.append(b"\n")
        elif fate is _Fate.OPENING:
            self._opening.append(b"\n")
        return chunk[1:]

    def _accept(self, line: bytes, out: list[bytes]) -> _Fate:
        """Route one line, its end included, to the caller, to the event's opening or nowhere."""
        if len(line) > MAX_LINE:
            raise _too_long()
        content = line.rstrip(b"\r\n")
        if not self._is_started:
            self._is_started = True
            content = content.removeprefix(_BOM)
        if content.startswith(b"data:"):
            is_extra = self._read_data(content[5:].strip())
            # Some upstreams leave out the blank line: more data behind the report is not its part.
            may_drop = self._strips and (self._is_dropping or not self._is_in_data)
            self._is_dropping = is_extra and may_drop
            if self._is_dropping:
                self._opening.clear()
                self._opening_size = 0
            self._is_in_data = self._strips
        elif content and self._waits_for_data(content):
            self._opening.append(line)
            self._opening_size += len(line)
            if self._opening_size > MAX_LINE:
                raise _too_long()
            return _Fate.OPENING
        is_dropped = self._is_dropping
        if not content:
            self._is_dropping = self._is_in_data = False
        if is_dropped:
            return _Fate.DROPPED
        if self._opening:
            out += self._opening
            self._opening.clear()
            self._opening_size = 0
        out.append(line)
        return _Fate.FORWARDED

    def _waits_for_data(self, content: bytes) -> bool:
        if not self._strips or self._is_in_data:
            return False
        # A comment belongs to no event; it waits only to keep its place behind fields that wait.
        return bool(self._opening) or not content.startswith(b":")

    def _read_data(self, payload: bytes) -> bool:
        """Note what one data line says; True if its event is nothing but the report of usage."""
        if payload == b"[DONE]":
            self.is_done = True
            return False
        self.events += 1
        has_usage = b'"usage"' in payload and not _has_only_null_usage(payload)
        if not has_usage and b'"error"' not in payload:
            return False
        try:
            event = _decode_event(payload)
            report = _report_of(event)
        except UNREADABLE:
            return False
        is_failure = bytes(event.error) not in _NOTHING
        self.has_error = self.has_error or is_failure
        self.is_done = self.is_done or bytes(event.type) in _CLOSING_TYPES
        if report:
            self._note_report(report, is_start=bytes(event.type) == b'"message_start"')
        has_own_report = bytes(event.usage) not in _NOTHING
        return has_own_report and not is_failure and _say_nothing(bytes(event.choices))

    def _note_report(self, report: bytes, *, is_start: bool) -> None:
        fields = decode_fields(report)
        if fields is not None and is_start:
            self._start_fields = fields
        elif fields is not None and self._start_fields is not None:
            fields = _overlay(self._start_fields, fields)
        usage = None if fields is None else judge(fields)
        if usage is None:
            self.usage_faults += 1
        else:
            self.usage = usage

    def _hold(self, part: bytes) -> None:
        if part:
            self._held.append(part)
            self._held_size += len(part)
            if self._held_size > MAX_LINE:
                raise _too_long()

    def _unhold(self) -> bytes:
        line = b"".join(self._held)
        self._held.clear()
        self._held_size = 0
        return line


def _has_only_null_usage(text: bytes) -> bool:
    count = text.count(b'"usage"')
    return count == text.count(b'"usage":null') or count == text.count(b'"usage": null')


def _report_of(event: _Event) -> bytes:
    """Return the JSON of the event's usage, empty if it reports none.

    The Responses API and Anthropic's put it one level down, in events of their own types.
    """
    report = bytes(event.usage)
    if report in _NOTHING and bytes(event.type).startswith(b'"response.') and event.response:
        report = bytes(_decode_carrier(event.response).usage)
    elif report in _NOTHING and bytes(event.type) == b'"message_start"' and event.message:
        report = bytes(_decode_carrier(event.message).usage)
    return b"" if report in _NOTHING else report


def _say_nothing(choices: bytes) -> bool:
    """Whether an event's choices carry nothing: there is none, or each has an empty delta.

    LiteLLM's proxy, for one, sends its report with such a choice.
    """
    if choices.translate(None, b" \t") == b"[]":
        return True
    try:
        found = _decode_choices(choices)
    except UNREADABLE:
        return False
    return bool(found) and not any(any(choice.delta.values()) for choice in found)


def _overlay(start: UsageFields, later: UsageFields) -> UsageFields:
    """Fill what a closing report leaves out (Anthropic: the input) from the opening one."""
    names = UsageFields.__struct_fields__
    chosen = {
        name: getattr(start, name) if getattr(later, name) is None else getattr(later, name)
        for name in names
    }
    return UsageFields(**chosen)


def _too_long() -> UpstreamError:
    message = f"the upstream's stream holds a line above {MAX_LINE} bytes"
    return UpstreamError("too_large", message, request_sent=True)
