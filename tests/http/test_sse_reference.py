"""The meter against a reader that is written from the standard alone, on streams cut anywhere.

The reader knows nothing of speed: it has the whole stream, splits it into lines and events as the
HTML standard says, and decodes every one. What the meter notes, and what a client of the standard
sees behind it, must be the same.
"""

from __future__ import annotations

import itertools
import json
import re
from typing import Any, NamedTuple

from hypothesis import example, given
from hypothesis import strategies as st

from bursar.gateway.meter.sse import StreamMeter
from bursar.gateway.meter.usage import Usage, parse_usage

USAGE = {"prompt_tokens": 24, "completion_tokens": 3, "total_tokens": 27}
LATER = {"prompt_tokens": 24, "completion_tokens": 9, "total_tokens": 33}
_LINE_END = re.compile(rb"\r\n|\n|\r")


class Noted(NamedTuple):
    """What there is to note of a stream."""

    usage: Usage | None
    faults: int
    events: int
    is_done: bool
    has_error: bool


def lines_of(stream: bytes) -> list[bytes]:
    """Its lines; a last one without an end is one."""
    return _LINE_END.split(stream.removeprefix(b"\xef\xbb\xbf"))


def decoded(payload: bytes) -> dict[str, Any]:
    """What a data line says, if it is an object."""
    try:
        found = json.loads(payload)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def noted(stream: bytes) -> Noted:
    """What the reader notes."""
    usage, faults, events, is_done, has_error = None, 0, 0, False, False
    for line in lines_of(stream):
        if not line.startswith(b"data:"):
            continue
        payload = line[5:].strip()
        if payload == b"[DONE]":
            is_done = True
            continue
        events += 1
        said = decoded(payload)
        has_error = has_error or said.get("error") is not None
        if said.get("usage") is not None:
            judged = parse_usage(said["usage"])
            usage, faults = judged or usage, faults + (judged is None)
    return Noted(usage, faults, events, is_done, has_error)


def dispatched(stream: bytes) -> list[bytes]:
    """The data of each event that a client of the standard is given; one without an end is none."""
    events: list[bytes] = []
    data: list[bytes] = []
    for line in lines_of(stream)[:-1]:
        if not line:
            if data:
                events.append(b"\n".join(data))
            data = []
        elif line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
    return events


def is_report(event: bytes) -> bool:
    """Whether an event says what was used and nothing else."""
    said = decoded(event)
    return said.get("usage") is not None and said.get("choices") == [] and "error" not in said


def metered(stream: bytes, places: list[int], *, strip_usage: bool) -> tuple[bytes, Noted]:
    """What the meter passes on and notes, when the stream comes in these pieces."""
    meter = StreamMeter(strip_usage=strip_usage)
    bounds = [0, *sorted(place for place in places if 0 < place < len(stream)), len(stream)]
    out = b"".join(meter.feed(stream[start:end]) for start, end in itertools.pairwise(bounds))
    out += meter.finish()
    found = Noted(meter.usage, meter.usage_faults, meter.events, meter.is_done, meter.has_error)
    return out, found


def said(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields, ensure_ascii=False).encode()


def word(text: str, **fields: Any) -> bytes:
    return said(choices=[{"index": 0, "delta": {"content": text}}], **fields)


_DATA = st.sampled_from(
    [
        word("one"),
        word("é漢🙂"),
        word('data: [DONE]\n\n"usage":{"prompt_tokens":1}'),
        word("two", usage=None),
        word("three", usage=USAGE),
        word("\u2028\u0085\x0b\x0c\x1c"),
        said(choices=[], usage=USAGE),
        said(choices=[], usage=LATER),
        said(choices=[], usage={**USAGE, "prompt_tokens": -1}),
        said(choices=[], usage={**USAGE, "prompt_tokens": "24"}),
        said(choices=[], usage={**USAGE, "prompt_tokens": 10**18}),
        said(error={"message": "overloaded"}),
        b"data: {broken",
        b"data:",
        b"data: [DONE]",
        b"data:[DONE]",
    ]
)
_BEFORE = st.sampled_from([[], [], [], [b": still here"], [b"event: chunk"], [b"id: 7", b": c"]])
_NEWLINE = st.sampled_from([b"\n", b"\n", b"\r\n", b"\r"])


@st.composite
def _streams(draw: st.DrawFn) -> bytes:
    """Events with a data line each, as model servers send them, with one kind of line end."""
    newline = draw(_NEWLINE)
    blocks = draw(st.lists(st.tuples(_BEFORE, _DATA), max_size=8))
    lines = [line for before, data in blocks for line in (*before, data, b"")]
    mark = draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf"]))
    return mark + b"".join(line + newline for line in lines)


_PLACES = st.lists(st.integers(1, 1_200), max_size=8)


@given(stream=_streams(), places=_PLACES, strip=st.booleans(), end=st.integers(0, 1_500))
@example(stream=word("漢") + b"\n\n", places=[30], strip=True, end=len(word("漢")) - 6)
def test_f_44_what_is_noted_is_what_the_reader_notes_wherever_the_stream_is_cut(
    stream: bytes, places: list[int], strip: bool, end: int
) -> None:
    for received in (stream, stream[:end]):
        assert metered(received, places, strip_usage=strip)[1] == noted(received)


@given(stream=_streams(), places=_PLACES)
def test_f_44_a_client_sees_every_event_but_the_report_that_it_did_not_ask_for(
    stream: bytes, places: list[int]
) -> None:
    asked, _ = metered(stream, places, strip_usage=False)
    assert asked == stream
    unasked, _ = metered(stream, places, strip_usage=True)
    assert dispatched(unasked) == [event for event in dispatched(stream) if not is_report(event)]
