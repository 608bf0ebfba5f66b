"""Known secrets in what runners print: every form found, nothing else touched."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentrq_worker.process.redact import SHORTEST, Redactor
from tests.attacks import attack


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=SHORTEST, max_size=30))
def test_no_form_of_a_secret_is_left(secret: str) -> None:
    redactor = Redactor([secret])
    for depth in range(3):
        for ascii_only in (True, False):
            text = secret
            for _ in range(depth):
                text = json.dumps(text, ensure_ascii=ascii_only)
            line = text.encode()
            clean = redactor.line(line)
            assert secret.encode() not in clean
            assert b"[redacted]" in clean
    assert redactor.count >= 6


@attack(
    "printing a secret: whole, escaped, escaped twice, in base64 wherever it stands in what is coded",
    "`[redacted]`, counted; *not* over several messages, nor in codings of the agent's own",
)
@given(
    st.binary(min_size=12, max_size=40).map(lambda data: data.decode("latin-1")), st.binary(max_size=7),
    st.binary(max_size=7),
)  # fmt: skip
def test_base64_of_a_secret(secret: str, before: bytes, after: bytes) -> None:
    redactor = Redactor([secret])
    for coded in (base64.b64encode, base64.urlsafe_b64encode):
        line = coded(before + secret.encode() + after)
        assert b"[redacted]" in redactor.line(line)
        left, _, right = redactor.line(line).partition(b"[redacted]")
        # Of it at most the bytes that share a group of four characters with what stands around it.
        assert len(left) <= (len(before) + 2) // 3 * 4
        assert len(right) <= (len(after) + 2) // 3 * 4 + 8


@pytest.mark.parametrize("written", ["caf\\u00e9-key", "caf\\u00E9-key", "café-key"])
def test_escapes_of_any_encoder(written: str) -> None:
    line = f'{{"text":"it is {written}!"}}'.encode()
    assert json.loads(Redactor(["café-key"]).line(line)) == {"text": "it is [redacted]!"}


def test_a_slash_as_php_and_others_write_it() -> None:
    assert Redactor(["https://hook/abc"]).line(rb'{"u":"https:\/\/hook\/abc"}') == b'{"u":"[redacted]"}'


def test_a_key_of_many_lines_is_found_line_by_line() -> None:
    key = "-----BEGIN KEY-----\nMIIEabcdef1234\n-----END KEY-----"
    redactor = Redactor([key])
    assert redactor.line(b"MIIEabcdef1234") == b"[redacted]"
    assert redactor.line(json.dumps({"k": key}).encode()) == b'{"k": "[redacted]"}'


def test_the_longer_of_two_secrets_first() -> None:
    assert Redactor(["secret-1", "secret-1-and-more"]).line(b"secret-1-and-more") == b"[redacted]"


def test_short_values_are_words() -> None:
    redactor = Redactor(["0", "true", "seven77"])
    assert not redactor
    line = b'{"true":0,"seven77":1}'
    assert redactor.line(line) is line


@pytest.mark.parametrize(
    ("line", "clean"),
    [
        (b'{"tokens":1234567890,"text":"id 1234567890"}', {"tokens": 1234567890, "text": "id [redacted]"}),
        (b'{"text":"1234567890"}', {"text": "[redacted]"}),
        (b'[1234567890,{"1234567890":["x1234567890"]}]', [1234567890, {"[redacted]": ["x[redacted]"]}]),
        (b'{"a":"\\ud800 1234567890","b":1234567890}', {"a": "? [redacted]", "b": 1234567890}),
    ],
)
def test_json_stays_json_where_a_secret_is_a_number(line: bytes, clean: Any) -> None:
    assert json.loads(Redactor(["1234567890"]).json(line)) == clean


def test_a_line_that_is_not_json_is_redacted_whole() -> None:
    assert Redactor(["1234567890"]).json(b'{"n":1234567890') == b'{"n":[redacted]'


def test_a_line_without_secrets_is_not_copied() -> None:
    redactor = Redactor(["secret-12345"])
    line = b'{"type":"text"}'
    assert redactor.line(line) is line
    assert redactor.count == 0


def test_a_secret_cut_at_the_end_of_a_long_log_line_leaves_no_beginning() -> None:
    redactor = Redactor(["0123456789abcdef"])
    assert "01234567" not in redactor.text("x" * 90 + "0123456789", 100)
    assert redactor.text("all is well", 100) == "all is well"
    assert redactor.text("key 0123456789abcdef.", 100) == "key [redacted]."
