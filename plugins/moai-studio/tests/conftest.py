"""Chromium, a studio that it reaches, and visits to it; only the tests marked ``browser`` ask for them."""

from __future__ import annotations

import importlib.util
import os
import shutil
import threading
import time

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 60.0  # seconds


def installed(name: str) -> bool:
    return importlib.util.find_spec(name.replace("-", "_")) is not None


@pytest.fixture(scope="module")
def browser():
    lacking = [] if CHROMIUM else ["apt-get install chromium"]
    lacking += [f"pip install {name}" for name in ("playwright", "axe-playwright-python") if not installed(name)]
    if lacking:
        reason = f"the browser's tests need what is not installed: {'; '.join(lacking)}"
        (pytest.fail if os.environ.get("MOAI_NEEDS_BROWSER") else pytest.skip)(reason)
    from playwright import sync_api as api

    with api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def serve():
    """Serve a studio on loopback: ``serve(perceiver)`` returns its address."""
    servers = []

    def start(perceiver=None) -> str:
        import uvicorn
        from moai_studio.application import build_application
        from studio_browsing import OneRun
        from studio_visitor import augmented

        app = build_application(OneRun(augmented(), perceiver))
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        end = time.monotonic() + PATIENCE
        while not server.started:
            assert time.monotonic() < end
            time.sleep(0.01)
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"

    yield start
    for server, thread in servers:
        server.should_exit = True
        thread.join(PATIENCE)


@pytest.fixture(scope="module")
def home(serve):
    return serve()


@pytest.fixture
def visit(browser, home):
    """``visit(**settings)``: a visit; at the end nothing may have gone wrong in any."""
    from studio_browsing import Visit

    visits = []

    def begin(address: str = home, **settings):
        visits.append(Visit(browser, address, **settings))
        return visits[-1]

    yield begin
    for one in visits:
        one.context.close()
        assert one.wrong == []
        assert {host for host in one.hosts if not host.startswith("http://127.0.0.1:")} == set()
