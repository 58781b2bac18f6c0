"""One person's browser on the studio's page, and what the tests in Chromium look for on it."""

from __future__ import annotations

import io
import re
import time

from studio_visitor import AtHand

from moai import Detection, Expert, Perception

QUESTION = "What color is the shape?"
MEASURED = ".turn.assistant:last-child .chance"  # the probability of the newest answer
FOCUSED = "() => (document.activeElement.ariaLabel || document.activeElement.innerText || '').trim()"
PLATES = """() => [...document.querySelectorAll("#overlay .plate")].map((one) => {
  const box = one.getBBox();
  return [box.x, box.y, box.x + box.width, box.y + box.height];
})"""
SIZE = "() => [document.getElementById('image').offsetWidth, document.getElementById('image').offsetHeight]"
OPEN_ALL = "() => document.querySelectorAll('details').forEach((one) => { one.open = true; })"
PATIENCE = 60.0  # seconds: a busy machine is no failure
MILLISECONDS = 1000 * PATIENCE


class Many(Expert):
    """Finds thirty things, some over others."""

    name, role, version = "tiny-many", "open_world", "1"

    def perceive(self, images, context):
        boxes = [((n % 6) / 7, (n // 6) / 6, (n % 6) / 7 + 0.2, (n // 6) / 6 + 0.16) for n in range(30)]
        found = tuple(Detection(f"thing number {n}", 0.99 - n / 100, box) for n, box in enumerate(boxes))
        return [Perception(detections=found) for _ in images]


class OneRun(AtHand):
    """One run at hand, which the page opens by itself."""

    def at_hand(self):
        return [{"id": "0", "name": "tiny", "recipe": "tiny", "host": "tiny", "experts": [], "accuracy": None}]


class Visit:
    """One person's browser: pages in a context of their own, and all that went wrong in it."""

    def __init__(self, browser, address: str, **settings) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **settings})
        self.context.set_default_timeout(MILLISECONDS)
        self.page, self.wrong, self.hosts = self.context.new_page(), [], set()
        self.page.on("console", lambda m: self.wrong.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on(
            "request", lambda request: self.hosts.add(re.sub(r"(blob:)?(https?://[^/]*).*", r"\2", request.url))
        )
        self.page.goto(address)
        self.page.get_by_role("button", name="Opening").wait_for(state="detached")

    def drop(self, image, name: str = "mine.png") -> None:
        """Drop a picture on the page."""
        data = io.BytesIO()
        image.save(data, "PNG")
        self.page.evaluate(
            """([bytes, name]) => {
              const given = new DataTransfer();
              given.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
              dispatchEvent(new DragEvent("drop", { dataTransfer: given, cancelable: true, bubbles: true }));
            }""",
            [list(data.getvalue()), name],
        )

    def seen(self) -> None:
        """Wait until the findings are there."""
        self.page.locator("#findings").wait_for(state="attached")

    def ask(self, text: str) -> str:
        """Ask by the form and return the answer."""
        self.page.get_by_label("Your question").fill(text)
        self.page.get_by_role("button", name="Ask", exact=True).click()
        self.page.locator(MEASURED).wait_for()
        return self.page.locator(".turn.assistant .text").last.inner_text()

    def count(self, selector: str) -> int:
        return self.page.locator(selector).count()

    def until(self, holds) -> None:
        """Wait until something holds."""
        end = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < end, "it never held"
            self.page.wait_for_timeout(20)
