"""Draw the pictures of docs/studio.md: the studio's page with a run, in Chromium, as a visitor sees it.

    python benchmarks/studio_pictures.py runs/quickstart

The photographs are those of `moai-photographs`, whose licences stand in its pictures.yaml.
"""

from __future__ import annotations

import argparse
import io
import shutil
import threading
import time
from pathlib import Path

import uvicorn
from moai_photographs.pictures import pictures
from moai_studio.application import build_application
from moai_studio.runs import Runs
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

MOST = 195_000  # bytes of a picture on the page
DESKTOP, PHONE = {"width": 1360, "height": 900}, {"width": 390, "height": 844}
PATIENCE = 300_000  # milliseconds


def main() -> None:
    """Serve the run, visit it, and write the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--out", type=Path, default=Path("docs/studio"), help="folder of the pictures")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    server = uvicorn.Server(uvicorn.Config(build_application(Runs([options.run])), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.1)
    address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        desktop(browser, address, options.out)
        dark(browser, address, options.out)
        phone(browser, address, options.out)
        browser.close()
    server.should_exit = True
    thread.join()


def visit(browser: Browser, address: str, photograph: str, size: dict[str, int], **settings) -> Page:
    """Open the page and drop a photograph."""
    page = browser.new_context(viewport=size, **settings).new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(address)
    page.get_by_role("button", name="Opening").wait_for(state="detached")
    page.locator("#file").set_input_files(pictures()[photograph].find())
    page.locator("#findings").wait_for(state="attached")
    page.locator("#suggestions button").first.wait_for()
    return page


def ask(page: Page, question: str) -> None:
    """Ask, and wait for the answer and its probability."""
    page.get_by_label("Your question").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator(".turn.assistant:last-child .chance").wait_for()
    print(f"{question} {page.locator('.turn.assistant .text').last.inner_text()}")


def only(page: Page, *opened: str) -> None:
    """Fold all sections but these."""
    page.evaluate(
        "(opened) => document.querySelectorAll('details').forEach((one) => { one.open = opened.includes(one.id); })",
        list(opened),
    )


def rests(page: Page) -> None:
    """Open what the answer rests on, and wait for it."""
    only(page, "rests")
    page.locator("#facts").wait_for()
    print(page.locator("#verdict").inner_text())
    page.mouse.move(5, 5)
    page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
    page.wait_for_timeout(300)


def desktop(browser: Browser, address: str, out: Path) -> None:
    """What was seen, and what an answer rests on."""
    page = visit(browser, address, "london_bus", DESKTOP)
    only(page, "seen")
    ask(page, "What vehicle is to the right of the bus?")
    page.mouse.move(5, 5)
    save(page, out / "seen.jpg")
    rests(page)
    save(page, out / "rests-on.jpg")
    page.context.close()


def dark(browser: Browser, address: str, out: Path) -> None:
    """A finding is deleted, and what follows from it follows."""
    page = visit(browser, address, "walkers", DESKTOP, color_scheme="dark")
    ask(page, "How many people are there?")
    only(page, "whatif")
    page.get_by_role("button", name="Delete thing “person”").first.click()
    page.wait_for_timeout(3000)
    page.get_by_role("button", name="Ask again").click()
    page.locator("#compared .first .chance").first.wait_for()
    print(page.locator("#compared").inner_text().replace("\n", " "))
    page.mouse.move(5, 5)
    page.evaluate("() => { document.activeElement.blur(); scrollTo(0, 0); }")
    save(page, out / "what-if-dark.jpg")
    page.context.close()


def phone(browser: Browser, address: str, out: Path) -> None:
    """Three screens of a phone, side by side."""
    page = visit(browser, address, "london_bus", PHONE, device_scale_factor=1.5)
    shots = [page.screenshot()]
    ask(page, "What vehicle is to the right of the bus?")
    rests(page)
    page.locator("#form").evaluate("(one) => scrollTo(0, one.closest('section').offsetTop - 20)")
    shots.append(page.screenshot())
    page.locator("#verdict").evaluate("(one) => scrollTo(0, one.getBoundingClientRect().top + scrollY - 20)")
    shots.append(page.screenshot())
    screens = [Image.open(io.BytesIO(shot)).convert("RGB") for shot in shots]
    gap, (width, height) = 36, screens[0].size
    sheet = Image.new("RGB", (len(screens) * (width + gap) - gap, height), (206, 208, 214))
    for number, screen in enumerate(screens):
        sheet.paste(screen, (number * (width + gap), 0))
    write(sheet, out / "phone.jpg")
    page.context.close()


def save(page: Page, path: Path) -> None:
    """Write what the page shows."""
    page.wait_for_timeout(300)
    write(Image.open(io.BytesIO(page.screenshot())).convert("RGB"), path)


def write(picture: Image.Image, path: Path) -> None:
    """Write a JPEG file with the best quality that fits."""
    for quality in range(90, 40, -4):
        picture.save(path, "JPEG", quality=quality, optimize=True, progressive=True)
        if path.stat().st_size <= MOST:
            break
    print(f"{path}: {path.stat().st_size:,} bytes at quality {quality}")


if __name__ == "__main__":
    main()
