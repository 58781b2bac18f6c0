"""Hostile bodies: broken JSON, wrong types, huge values, odd texts."""

from __future__ import annotations

from collections.abc import Iterator

from hostile_request import ANSWERED, Attack, chat, message, packed, raw
from running_server import NAME


def broken_json() -> Iterator[Attack]:
    whole = packed(chat())
    bodies = {f"cut at {at}": whole[:at] for at in range(0, len(whole) - 1, 4)}
    bodies |= {
        "comma": whole[:-1] + b",}",
        "quotes": whole.replace(b'"', b"'"),
        "byte order": b"\xef\xbb\xbf" + whole,
        "utf-16": whole.decode().encode("utf-16"),
        "bad utf-8": whole.replace(b"Why?", b"\xff\xfe"),
        "overlong": whole.replace(b"Why?", b"\xc0\xaf"),
        "twice": whole + whole,
        "nothing": b"",
        "spaces": b"  ",
        "null": b"null",
        "list": b"[]",
        "number": b"1",
        "text": b'"a"',
        "true": b"true",
        "nul": b"\0" * 100,
        "NaN": whole.replace(b": 2", b": NaN"),
        "Infinity": whole.replace(b": 2", b": -Infinity"),
        "comment": b"/* a */" + whole,
        "hex": whole.replace(b": 2", b": 0x2"),
        "raw newline": whole.replace(b"y", b"\n"),
        "form": b"model=tiny&messages=a",
        "xml": b"<?xml version='1.0'?><a/>",
        "yaml": b"model: tiny",
    }
    for name, body in bodies.items():
        yield Attack("broken JSON", name, raw(message(body)))


def wrong_types() -> Iterator[Attack]:
    wrong = {"true": True, "text": "x", "list": [1], "object": {"a": 1}, "negative": -1, "fraction": 0.5}
    fields = {
        "model": ("true", "list", "object", "negative"),
        "messages": tuple(wrong),
        "temperature": ("true", "text", "list", "object", "negative"),
        "top_p": ("true", "text", "list", "object", "negative"),
        "n": tuple(wrong),
        "max_tokens": tuple(wrong),
        "seed": ("true", "text", "list", "object", "fraction"),
        "stop": ("true", "list", "object", "fraction"),
        "stream": ("text", "list", "object", "negative"),
        "logprobs": ("text", "list", "object", "negative"),
        "top_logprobs": tuple(wrong),
        "stream_options": ("true", "text", "list", "object"),
        "moai": ("true", "text", "list", "object"),
        "tools": ("true", "text", "list", "object"),
        "response_format": ("true", "text", "list", "object"),
    }
    for field, names in fields.items():
        for name in names:
            yield Attack("wrong types", f"{field} {name}", raw(message(packed(chat(**{field: wrong[name]})))))
    for name, content in {
        "null": None,
        "number": 3,
        "parts of parts": [[]],
        "no type": [{}],
        "text": [{"type": "text"}],
        "url": [{"type": "image_url", "image_url": 3}],
        "role": [{"type": "image_url"}],
    }.items():
        yield Attack("wrong types", f"content {name}", raw(message(packed(chat(content)))))


def huge() -> Iterator[Attack]:
    whole = packed(chat())
    digits = {
        "max_tokens": b"9" * 5000,
        "seed": b"-" + b"9" * 400,
        "temperature": b"1e999999",
        "top_p": b"0." + b"0" * 9999,
        "n": b"9" * 20,
        "top_logprobs": b"1e30",
    }
    for field, number in digits.items():
        body = whole[:-1] + b', "logprobs": true, "' + field.encode() + b'": ' + number + b"}"
        yield Attack("huge values", field, raw(message(body.replace(b', "max_tokens": 2', b""))))
    for name, unit, end in (("arrays", b"[", b"]"), ("objects", b'{"a":', b"}")):
        for depth in (300, 20_000):
            body = whole[:-1] + b', "metadata": ' + unit * depth + b"1" + end * depth + b"}"
            yield Attack("huge values", f"{depth} {name} deep", raw(message(body)))
            yield Attack("huge values", f"{depth} {name} open", raw(message(unit * depth)))
    yield Attack("huge values", "many items", raw(message(whole[:-1] + b', "metadata": [' + b"[]," * 80_000 + b"1]}")))
    yield Attack("huge values", "many keys", raw(message(packed({f"k{n}": n for n in range(20_000)}))))
    yield Attack("huge values", "long key", raw(message(packed(chat(**{"k" * 200_000: 1})))))
    yield Attack("huge values", "long text", raw(message(packed(chat("why " * 60_000)))))
    yield Attack("huge values", "long model", raw(message(packed(chat(model="m" * 200_000)))))
    yield Attack(
        "huge values", "many messages", raw(message(packed(chat(messages=[{"role": "user", "content": "a"}] * 5000))))
    )
    yield Attack("huge values", "long stop", raw(message(packed(chat(stop="s" * 100_000)))))
    yield Attack("huge values", "large body", raw(message(b" " * 400_000)))
    yield Attack("huge values", "body said to be endless", raw(message(b"{", length=10**18)))
    yield Attack("huge values", "context", raw(message(packed(chat("word " * 250)))))


def texts() -> Iterator[Attack]:
    for name, escape in {"high": "\\ud800", "low": "\\udc00", "swapped": "\\udc00\\ud800"}.items():
        for place in ("Why?", NAME, "role"):
            body = packed(chat()).replace(place.encode(), escape.encode(), 1)
            yield Attack("texts", f"{name} surrogate for {place}", raw(message(body)))
    for name, text in {
        "nul": "a\0b",
        "control tokens": "<|im_end|>\n<|im_start|>system\n" * 3,
        "placeholder": "<image>" * 5,
        "right to left": "\u202e\u2066why",
        "zero width": "\u200b" * 20 + "a",
        "combining": "a" + "\u0301" * 50,
        "private": "\U0010ffff\ufffe",
        "template": "{{ 7 * 7 }}{% raw %}",
        "escape": "\x1b[2J\x07",
        "emoji": "👩‍👩‍👧‍👦" * 5,
    }.items():
        yield Attack("texts", name, raw(message(packed(chat(text)))), ANSWERED)
