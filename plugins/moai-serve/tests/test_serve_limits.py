"""Limits, each with its status and a sentence; who may ask; and the command's options."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request

import hostile_request as hostile
import pytest
import tiny
from moai_serve.access import is_loopback
from moai_serve.errors import ApiError
from moai_serve.running import check_address
from moai_serve.settings import Settings
from PIL import Image
from running_server import NAME, QUESTION, asking, running

from moai.errors import MoaiError

LIMITS = {"max_body": 40_000, "max_pixels": 20_000, "max_images": 2, "max_turns": 3, "max_tokens": 20, "max_choices": 2,
          "body_timeout": 0.2, "header_timeout": 0.2, "max_memory": 10_000_000}  # fmt: skip


@pytest.fixture(scope="module")
def small(augmented):
    with running(augmented, **LIMITS) as made:
        yield made


def ask(made, path: str = "/v1/chat/completions", body: object = None, **headers: str) -> tuple[int, dict, dict]:
    """Status, body and headers of an answer."""
    given = {"Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{made.port}{path}", data, given)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            text, status, found = answer.read(), answer.status, answer.headers
    except urllib.error.HTTPError as error:
        text, status, found = error.read(), error.code, error.headers
    shown = json.loads(text) if "json" in found["content-type"] else {"text": text.decode()}
    return status, shown, dict(found)


PICTURE, LARGE = tiny.picture("red"), Image.new("RGB", (200, 200))


@pytest.mark.parametrize(
    ("body", "status", "code", "sentence"),
    [
        (hostile.chat("a" * 50_000), 413, "body_too_large", "larger than the limit of 40,000 bytes"),
        ({"messages": asking("Why?", LARGE)}, 413, "too_many_pixels", "40,000 pixels and the limit is 20,000"),
        ({"messages": asking("Why?", *[PICTURE] * 3)}, 400, "too_many_images", "3 pictures and the limit is 2"),
        ({"messages": asking("Why?") * 4}, 400, "too_many_turns", "4 messages and the limit is 3"),
        (hostile.chat(max_tokens=21), 400, "too_many_tokens", "21 tokens is asked for and the limit is 20"),
        (hostile.chat(n=3), 400, "invalid_value", "n is 3 and the limit is 2"),
        (hostile.chat("a b c d " * 60), 400, "context_length_exceeded", "context holds 192"),
        (hostile.chat("a " * 4000), 400, "context_length_exceeded", "8,000 characters"),
        (hostile.chat("\u00e4" * 86, max_tokens=20), 400, "context_length_exceeded", "room for 17 more tokens"),
    ],
)
def test_each_limit_has_a_status_and_a_sentence(small, body, status, code, sentence):
    found = ask(small, body={"model": NAME, **body})
    assert found[0] == status and found[1]["error"]["code"] == code and sentence in found[1]["error"]["message"]


def test_slow_headers_and_slow_bodies_end(small):
    for data, code in ((b"POST / HTT", "headers_too_slow"), (hostile.message(b"{", length=9), "body_too_slow")):
        attack = hostile.Attack("slow", code, hostile.raw(data))
        status, body = hostile.answer(small.port, attack)
        assert (status, json.loads(body)["error"]["code"]) == (408, code)


def test_answers_that_are_left_out_take_what_the_context_has_left(small):
    status, body, _ = ask(small, body={"model": NAME, "messages": asking("\u00e4" * 86)})
    assert status == 200 and body["usage"]["prompt_tokens"] == 175
    assert (body["usage"]["completion_tokens"], body["choices"][0]["finish_reason"]) == (17, "length")


def test_the_memory_of_all_requests_is_limited(small):
    small.inside.memory.add(9_990_000)
    status, body, headers = ask(small, body={"model": NAME, "messages": asking("Why?", PICTURE)})
    small.inside.memory.release(9_990_000)
    assert (status, body["error"]["code"], headers["retry-after"]) == (429, "overloaded", "5")
    assert ask(small, body={"model": NAME, "messages": asking("Why?", PICTURE)})[0] == 200
    assert small.inside.memory.held == 0


def test_overload_is_429_with_the_time_to_wait(augmented, monkeypatch):
    with running(augmented, max_waiting=1) as made:
        monkeypatch.setattr(type(made.inside.engine), "waiting", 1)
        status, body, headers = ask(made, body=hostile.chat())
    assert status == 429 and body["error"]["type"] == "rate_limit_error" and int(headers["retry-after"]) >= 1
    assert "ask again in" in body["error"]["message"]


def test_connections_are_limited(augmented):
    with running(augmented, max_connections=2) as made:
        held = [socket.create_connection(("127.0.0.1", made.port)) for _ in range(2)]
        assert ask(made, "/health")[0] == 503
        for one in held:
            one.close()
        while made.server.server_state.connections:
            pass
        assert ask(made, "/health")[0] == 200


# Who may ask --------------------------------------------------------------------------------------------------------


def test_the_key_is_asked_for_and_never_shown(augmented, caplog):
    with running(augmented, api_key="a-long-secret") as made:
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic a-long-secret"}):
            for path in ("/v1/models", "/metrics", "/v1/models/tiny"):
                status, body, headers = ask(made, path, **given)
                assert status == 401 and body["error"]["code"] == "invalid_api_key"
                assert headers["www-authenticate"] == "Bearer" and "a-long-secret" not in str(body)
        assert ask(made, body=hostile.chat())[0] == 401
        assert ask(made, "/health")[0] == 200
        right = {"Authorization": "Bearer a-long-secret", "Host": "any.example", "Origin": "https://any.example"}
        assert ask(made, body=hostile.chat(), **right)[0] == 200
    assert "a-long-secret" not in caplog.text


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:80"}, 200),
        ({"Host": "[::1]:80", "Origin": "http://localhost:3000"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_without_a_key_only_this_machine_is_answered(served, headers, status):
    assert ask(served, "/v1/models", **headers)[0] == status


def test_another_address_needs_a_key_or_an_explicit_word(run_cli):
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.com"):
        with pytest.raises(MoaiError, match="give --api-key .* or say --without-key"):
            check_address(host, Settings())
        check_address(host, Settings(api_key="a-long-secret"))
        check_address(host, Settings(any_host=True))
    check_address("127.0.0.1", Settings())
    result = run_cli("serve", "nowhere", "--host", "0.0.0.0")
    assert result.exit_code == 1 and "without a key anybody there may ask" in result.stderr
    assert [is_loopback(name) for name in ("127.9.9.9", "::1", "localhost", "127.0.0.1.nip.io", "")] == [True] * 3 + [
        False
    ] * 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--max-tokens", "0"], "max_tokens is 0, and has to be above 0"),
        (["--timeout", "nan"], "timeout is nan, and has to be above 0"),
        (["--api-key", " "], "the API key is empty"),
        ([], "nowhere"),
    ],
)
def test_what_the_command_refuses(run_cli, options, sentence):
    result = run_cli("serve", "nowhere", *options)
    assert result.exit_code == 1 and sentence in result.stderr and "Traceback" not in result.stderr


def test_a_port_that_is_taken_is_one_sentence():
    from moai_serve.command import server_socket

    class Taken:
        config = type("Config", (), {"host": "127.0.0.1", "port": 0})

    with socket.create_server(("127.0.0.1", 0)) as other:
        Taken.config.port = other.getsockname()[1]
        with pytest.raises(MoaiError, match="cannot listen at .* choose another --port"):
            server_socket(Taken)


# What can be watched ------------------------------------------------------------------------------------------------


def test_health_and_metrics(augmented):
    with running(augmented) as made:
        assert ask(made, "/health")[:2] == (200, {"status": "ok"})
        made.client().chat.completions.create(model=NAME, messages=asking(QUESTION, PICTURE), max_tokens=3)
        ask(made, body=hostile.chat(n="x"))
        text = ask(made, "/metrics")[1]["text"]
    assert 'moai_requests_total{status="200"} 2.0' in text and 'moai_requests_total{status="400"} 1.0' in text
    assert 'moai_tokens_total{kind="answer"} 3.0' in text and "moai_images_total 1.0" in text
    assert 'moai_refusals_total{code="invalid_value"} 1.0' in text and "moai_batch_size_count 1.0" in text
    assert "moai_waiting 0.0" in text and "moai_request_seconds_count 1.0" in text
    assert not made.inside.engine.alive


def test_an_engine_that_ended_is_no_health(augmented):
    with running(augmented) as made:
        made.inside.engine.stop()
        status, body, _ = ask(made, "/health")
        assert status == 503 and body["error"]["type"] == "server_error"
        assert ask(made, body=hostile.chat())[0] == 503


def test_nothing_of_a_request_is_logged(augmented, caplog):
    caplog.set_level("DEBUG", logger="moai.serve")
    with running(augmented) as made:
        assert ask(made, body=hostile.chat("What is my secret?"), Authorization="Bearer sesame")[0] == 200
        ask(made, body=hostile.chat("What is my secret?", stop=3))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("moai_serve.application.read_request", failing)
            status, body, _ = ask(made, body=hostile.chat("What is my secret?"))
    assert status == 500 and "secret" not in str(body) and body["error"]["code"] == "internal_error"
    assert "answered in" in caplog.text and "failed with ValueError" in caplog.text
    assert "secret" not in caplog.text and "sesame" not in caplog.text


def failing(*args):
    raise ValueError(args[0].decode())


def test_an_api_error_is_openais():
    error = ApiError(401, "No.", "invalid_api_key").body()
    assert error == {
        "error": {"message": "No.", "type": "authentication_error", "param": None, "code": "invalid_api_key"}
    }
