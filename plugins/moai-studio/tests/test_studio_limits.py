"""What no page of ours would send gets a sentence and a status, costs little, and leaves the studio as it was."""

import io
import json
import re
import struct
import zlib

import pytest
import tiny
from moai_studio import sessions
from moai_studio.application import MAX_PICTURE, MAX_REQUEST, STATIC
from PIL import Image
from studio_visitor import Visitor, studio

TURN = {"role": "user", "text": "What is it?", "pictures": []}
ASK = {"run": "0", "turns": [TURN]}


@pytest.fixture(scope="module")
def visitor():
    return Visitor(studio()[0])


def bomb() -> bytes:
    """A PNG file of a few bytes that says it is 60,000 pixels wide and high."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "data", [b"", b"\0", b"GIF89a", b"<svg onload=alert(1)>", bomb(), tiny.png(tiny.picture("red"))[:90], b"%!PS-Adobe"]
)
def test_what_is_no_picture(visitor, data):
    refused = visitor.client.post("/api/pictures", content=data)
    assert refused.status_code == 422 and refused.json()["error"]


@pytest.mark.parametrize("body", [
    b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b"[" * 100_000, b'{"a":' * 5_000, json.dumps({"run": "0"}).encode(),
    *(json.dumps(one).encode() for one in (
        {**ASK, "turns": []}, {**ASK, "turns": [TURN] * 33}, {**ASK, "turns": [{**TURN, "role": "system"}]},
        {**ASK, "turns": [{**TURN, "text": "x" * 4001}]}, {**ASK, "turns": [{**TURN, "pictures": ["p"] * 9}]},
        {**ASK, "turns": [{**TURN, "pictures": [1]}]}, {**ASK, "max_new_tokens": 10**9}, {**ASK, "max_new_tokens": 0},
        {**ASK, "max_new_tokens": "8"}, {**ASK, "path": "/etc/passwd"}, {**ASK, "run": ["0"]}, {**ASK, "run": "x" * 65},
        {**ASK, "edits": {"p": [{"do": "run", "finding": "x"}]}},
        {**ASK, "edits": {"p": [{"do": "move", "finding": "x", "box": [0, 0, 2, 1]}]}},
        {**ASK, "edits": {"p": [{"do": "move", "finding": "x", "box": [0, 0, float("nan"), 1]}]}},
        {**ASK, "edits": {"p": [{"do": "add", "text": "x" * 257}]}},
    )),
])  # fmt: skip
def test_what_no_page_of_ours_sends(visitor, body):
    refused = visitor.client.post("/api/ask", content=body)
    assert refused.status_code == 400
    message = refused.json()["error"]
    assert message.startswith("the request is not one of the page's") and len(message) < 400


@pytest.mark.parametrize(("ask", "message"), [
    ({**ASK, "run": "7"}, "not at hand"), ({**ASK, "run": "../../etc"}, "not at hand"),
    ({**ASK, "turns": [{**TURN, "text": " "}]}, "the question is empty"),
    ({**ASK, "turns": [TURN, {**TURN, "role": "assistant"}]}, "the question is empty"),
    ({**ASK, "turns": [{**TURN, "pictures": ["../x"]}]}, "not held any more"),
    ({**ASK, "turns": [{**TURN, "text": "word " * 700}]}, "context"),
])  # fmt: skip
def test_what_cannot_be_answered(visitor, ask, message):
    last = visitor.last("ask", **ask)
    assert last["event"] == "error" and message in last["message"]


def test_bodies_are_read_to_their_limit_only(visitor):
    for path, limit in (("pictures", MAX_PICTURE), ("ask", MAX_REQUEST)):
        refused = visitor.client.post(f"/api/{path}", content=b" " * (limit + 1))
        assert refused.status_code == 413 and "more than" in refused.json()["error"]


def test_a_session_is_needed_and_must_be_known(visitor):
    for name in ("", "guess", "x" * 10_000):
        refused = visitor.client.post("/api/pictures", content=b"x", headers={"X-Moai-Session": name})
        assert refused.status_code == 400 and "reload the page" in refused.json()["error"]


def test_old_pictures_and_sessions_make_room(monkeypatch):
    app, held = studio()
    one = Visitor(app)
    names = [one.add(tiny.picture("red")) for _ in range(sessions.MAX_PICTURES + 2)]
    assert list(held.find(one.session).pictures) == names[2:]
    monkeypatch.setattr(sessions, "MAX_BYTES", 5 * 64 * 64 * 3)
    other = Visitor(app)
    last = other.add(tiny.picture("red"))
    assert list(held.find(other.session).pictures) == [last] and len(held.find(one.session).pictures) == 4
    monkeypatch.setattr(sessions, "MAX_BYTES", 64 * 64 * 3 - 1)
    assert other.client.post("/api/pictures", content=tiny.png(tiny.picture("red"))).status_code == 422
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 2)
    Visitor(app)
    assert one.client.get("/api/pictures/x", headers={"X-Moai-Session": one.session}).status_code == 400


def test_a_photograph_lies_as_it_was_taken(visitor):
    photograph = Image.new("RGB", (40, 20), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    made = io.BytesIO()
    photograph.save(made, "JPEG", exif=exif.tobytes())
    held = visitor.client.post("/api/pictures", content=made.getvalue()).json()
    assert (held["width"], held["height"]) == (20, 40)


def test_the_page_makes_markup_of_no_data_and_asks_nobody_else():
    scripts = {path.name: path.read_text() for path in STATIC.glob("*.js")}
    markup = [
        (name, line)
        for name, text in scripts.items()
        for line in text.splitlines()
        if re.search(r"innerHTML|insertAdjacentHTML|outerHTML|document\.write|eval\(", line)
    ]
    assert [name for name, _ in markup] == ["app.js"] and "ICONS[chosen]" in markup[0][1]
    for path in STATIC.iterdir():
        text = path.read_text()
        assert re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text.replace("http://www.w3.org/2000/svg", "")) == [], (
            path.name
        )
