"""Only the studio's own page gets anything: hosts, origins, keys, headers, paths."""

import pytest
from moai_studio.application import build_application
from moai_studio.guard import HEADERS
from starlette.testclient import TestClient
from studio_visitor import HOME, AtHand, augmented


@pytest.fixture(scope="module")
def client():
    return TestClient(build_application(AtHand(augmented())), base_url=HOME)


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:9", "LOCALHOST", "[::1]:7860"])
def test_own_addresses_are_let_in(client, host):
    assert client.get("/api/state", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "127.0.0.1.evil.example", "", "localhost:x", "127.0.0.2"]
)
@pytest.mark.parametrize("path", ["/", "/api/state", "/static/app.js"])
def test_another_name_for_this_machine_is_refused(client, host, path):
    refused = client.get(path, headers={"Host": host})
    assert refused.status_code == 403 and "not the studio's own" in refused.json()["error"]


@pytest.mark.parametrize("headers", [
    {"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "https://127.0.0.1:7860"},
    {"Origin": "http://127.0.0.1:7861"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
])  # fmt: skip
def test_another_page_is_refused(client, headers):
    refused = client.post("/api/session", headers=headers)
    assert refused.status_code == 403 and "another web page" in refused.json()["error"]


def test_the_own_page_is_let_in_and_nobody_else_is_asked_to(client):
    own = client.post("/api/session", headers={"Origin": HOME, "Sec-Fetch-Site": "same-origin"})
    assert own.status_code == 200 and not [name for name in own.headers if name.startswith("access-control")]
    assert client.options("/api/session", headers={"Origin": HOME}).status_code == 405


def test_every_answer_confines_the_page(client):
    for path in ("/", "/static/app.js", "/api/state", "/nothing"):
        answer = client.get(path)
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    policy = HEADERS["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    assert client.get("/api/state").headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path", ["/static/../command.py", "/static/%2e%2e/command.py", "/static//etc/passwd", "/static/..%2fcommand.py"]
)
def test_no_file_but_the_pages_own(client, path):
    assert client.get(path).status_code == 404


def test_a_key_where_one_is_needed():
    client = TestClient(build_application(AtHand(augmented()), key="secret"), base_url="http://10.0.0.7:7860")
    assert client.get("/").status_code == 200  # the page, which has the key in its address
    for headers in ({}, {"X-Moai-Key": "guess"}, {"X-Moai-Key": "sécret".encode()}):
        assert client.get("/api/state", headers=headers).status_code == 403
    assert client.get("/api/state", headers={"X-Moai-Key": "secret"}).status_code == 200
