"""The studio's page in Chromium: a visit, by the keyboard, on a phone, in the dark, and what it may not do.

``make test-browser`` runs these. Chromium is the system's own: ``apt-get install chromium``.
"""

from __future__ import annotations

import re

import pytest
import tiny
from studio_browsing import FOCUSED, MEASURED, OPEN_ALL, PLATES, QUESTION, SIZE, Many, Visit
from studio_visitor import Derived, Print, Slow, augmented

from moai import Perceiver

pytestmark = pytest.mark.browser


def test_a_visit(visit):
    here = visit()
    here.drop(tiny.picture("red"))
    here.seen()
    assert here.page.get_by_role("row", name="red").first.is_visible()
    answer = here.ask(QUESTION)
    assert answer == augmented().ask(tiny.picture("red"), QUESTION, max_new_tokens=32).text.strip()
    here.page.get_by_role("button", name="Why this answer?").click()
    here.page.locator("#facts").wait_for()
    assert here.count("#conditions .cardlet") == 3 and here.count("#facts tbody tr") == 4
    assert "“" in here.page.locator("#verdict").inner_text()
    assert here.page.get_by_role("button", name="What it rests on").get_attribute("aria-pressed") == "true"
    here.page.get_by_role("button", name="What was seen").click()
    assert here.page.locator("#layers").is_visible()


def test_an_answer_is_shown_while_it_is_made(visit):
    here = visit()
    here.drop(tiny.picture("blue"))
    here.seen()
    here.page.evaluate(
        """() => {
          window.lengths = new Set();
          new MutationObserver(() => {
            const last = [...document.querySelectorAll(".turn.assistant .text")].at(-1);
            if (last) window.lengths.add(last.textContent.length);
          }).observe(document.getElementById("turns"), { childList: true, subtree: true, characterData: true });
        }"""
    )
    answer = here.ask(QUESTION)
    assert len(answer) > 10 and here.page.evaluate("() => window.lengths.size") > 2


def test_a_layer_is_switched_off_and_on(visit):
    here = visit()
    here.drop(tiny.picture("red"))
    here.seen()
    layer, shapes = here.page.get_by_role("button", name="tiny-print"), "#overlay .shape"
    before = here.count(shapes)
    layer.click()
    assert layer.get_attribute("aria-pressed") == "false" and here.count(shapes) == before - 2
    assert layer.evaluate("(one) => one === document.activeElement")
    layer.click()
    assert here.count(shapes) == before


def test_what_was_printed_is_text(visit):
    here = visit()
    here.drop(tiny.picture("red"))
    here.seen()
    here.page.evaluate(OPEN_ALL)
    assert here.page.get_by_role("button", name="“<b>EXIT</b>”").first.is_visible()
    assert here.count("main b") == 0


def test_a_finding_is_edited_and_asked_about_again(visit):
    here = visit()
    here.drop(tiny.picture("red"))
    here.seen()
    before = here.ask(QUESTION)
    here.page.locator("#whatif summary").click()
    again = here.page.get_by_role("button", name="Ask again")
    assert again.is_disabled()
    here.page.get_by_label("Text of thing “red”").fill("blue")
    here.page.get_by_label("Text of thing “red”").press("Enter")
    here.page.get_by_text("blue near blue").first.wait_for(state="attached")  # what was derived has followed
    again.click()
    here.page.locator("#compared .first .chance").first.wait_for()
    cards = here.page.locator("#compared .says").all_inner_texts()
    assert cards[0] == before and len(cards) == 2
    here.page.get_by_role("button", name="Take all back").click()
    here.page.get_by_text("red near red").first.wait_for(state="attached")
    here.page.get_by_role("button", name="Delete thing “red”").click()
    here.page.get_by_text("0 things: none").first.wait_for(state="attached")
    here.page.get_by_role("button", name="Take back the change of thing “red”").click()
    here.page.get_by_role("button", name="Add a thing").click()
    here.page.get_by_text("2 things: red, thing").first.wait_for(state="attached")


def test_all_of_it_by_the_keyboard(visit):
    here = visit()
    page = here.page

    def tab_to(name: str) -> None:
        for _ in range(120):
            page.keyboard.press("Tab")
            if page.evaluate(FOCUSED) == name:
                return
        pytest.fail(f"no Tab leads to '{name}'")

    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.className") == "skip"
    page.get_by_role("button", name="Drawn shapes").wait_for()
    tab_to("Drawn shapes")
    page.keyboard.press("Enter")
    here.seen()
    page.get_by_label("Your question").focus()
    page.keyboard.type(QUESTION)
    page.keyboard.press("Enter")
    page.locator(MEASURED).wait_for()
    page.locator("#whatif summary").focus()
    page.keyboard.press("Enter")
    named = page.get_by_role("button", name=re.compile("^Move thing")).first.get_attribute("aria-label")
    tab_to(named)
    page.keyboard.press("Enter")
    left = page.locator("#overlay .grip").get_attribute("x")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert float(page.locator("#overlay .grip").get_attribute("x")) > float(left)
    page.keyboard.press("Enter")
    page.get_by_text("1 change", exact=True).wait_for()
    here.until(lambda: page.evaluate("() => document.activeElement.ariaLabel") == named)
    page.get_by_role("button", name="Ask again").focus()
    page.keyboard.press("Enter")
    page.locator("#compared .first .chance").first.wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_serious_for_axe_and_no_scrolling_sideways(visit, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    here = visit(viewport={"width": width, "height": 780}, color_scheme=scheme)
    states = [examine(here, Axe())]
    here.drop(tiny.picture("red"))
    here.seen()
    here.ask(QUESTION)
    here.page.evaluate(OPEN_ALL)
    here.page.locator("#facts").wait_for()
    states.append(examine(here, Axe()))
    here.page.get_by_role("button", name="tiny", exact=True).click()
    states.append(examine(here, Axe()))
    assert states == [[], [], []]
    assert here.page.evaluate("() => document.documentElement.scrollWidth") <= width


def examine(here: Visit, axe) -> list[str]:
    """What axe finds serious or critical, in a line each."""
    here.page.wait_for_timeout(250)  # the last transition
    found = axe.run(here.page).response["violations"]
    grave = [one for one in found if one["impact"] in ("serious", "critical")]
    return [f"{one['id']}: {[node['html'][:120] for node in one['nodes'][:3]]}" for one in grave]


def test_every_control_has_a_name(visit):
    here = visit()
    here.drop(tiny.picture("red"))
    here.seen()
    here.page.evaluate(OPEN_ALL)
    tree = here.page.locator("body").aria_snapshot()
    assert not re.search(r"- (button|textbox|checkbox|link|img)\s*$", tree, re.MULTILINE), tree


def test_dark_by_the_system_and_by_choice(visit):
    here = visit(color_scheme="dark")
    page, colour = here.page, "() => getComputedStyle(document.documentElement).backgroundColor"
    dark = page.evaluate(colour)
    assert sum(map(int, re.findall(r"\d+", dark))) < 120
    page.get_by_role("button", name="Colours: as the system").click()
    assert page.evaluate(colour) != dark
    page.get_by_role("button", name="Colours: light").click()
    page.reload()
    page.get_by_role("button", name="Colours: dark").wait_for()
    assert page.evaluate(colour) == dark


def test_two_people_at_once(visit):
    people = {color: visit() for color in ("red", "blue")}
    for color, here in people.items():
        here.drop(tiny.picture(color))
    for here in people.values():
        here.seen()
        here.page.get_by_label("Your question").fill(QUESTION)
    for here in people.values():
        here.page.get_by_role("button", name="Ask", exact=True).click()
    for color, here in people.items():
        here.page.locator(MEASURED).wait_for()
        expected = augmented().ask(tiny.picture(color), QUESTION, max_new_tokens=32).text.strip()
        assert here.page.locator(".turn.assistant .text").inner_text() == expected
        assert here.page.get_by_role("row", name=color).first.is_visible()


def test_several_pictures_and_turns(visit):
    here = visit()
    here.drop(tiny.picture("red"))
    here.seen()
    here.drop(tiny.picture("blue"), "second.png")
    here.page.get_by_role("button", name="Picture 2: second.png").wait_for()
    here.page.get_by_role("row", name="blue").first.wait_for()
    here.page.get_by_role("button", name="Ask about picture 1 as well").click()
    assert here.page.get_by_text("About pictures 1 and 2").is_visible()
    here.ask("What color is it?")
    assert here.page.get_by_text("picture 1, 2").is_visible()
    here.page.get_by_label("Earlier turns count").check()
    here.page.get_by_label("Your question").fill("And now?")
    with here.page.expect_request("**/api/ask") as sent:
        here.page.keyboard.press("Enter")
    turns = sent.value.post_data_json["turns"]
    assert [turn["role"] for turn in turns] == ["user", "assistant", "user"] and len(turns[0]["pictures"]) == 2
    here.until(lambda: here.count(".turn.assistant .text.cursor") == 0)


def test_a_slow_expert_is_seen_at_work_and_skipped(visit, serve):
    slow = Slow()
    here = visit(serve(Perceiver(["tiny-panoptic", slow, Derived()])))
    here.drop(tiny.picture("red"))
    here.page.get_by_role("button", name="Skip tiny-slow").wait_for()
    assert here.page.locator("#perceiving li.finished").inner_text().split()[1] == "tiny-panoptic"
    here.page.get_by_label("Your question").fill(QUESTION)
    here.page.keyboard.press("Enter")
    here.page.get_by_role("button", name="Stop", exact=True).wait_for()
    here.page.get_by_role("button", name="Skip tiny-slow").click()
    here.page.get_by_text("Answered without tiny-slow").wait_for()
    slow.go.set()
    here.page.get_by_role("button", name="Look again").click()
    here.until(lambda: not here.page.locator("#perceiving").is_visible())


def test_a_question_is_stopped_while_an_expert_works(visit, serve):
    slow = Slow()
    here = visit(serve(Perceiver([slow])))
    here.drop(tiny.picture("red"))
    here.page.get_by_role("button", name="Skip tiny-slow").wait_for()
    here.page.get_by_label("Your question").fill(QUESTION)
    here.page.keyboard.press("Enter")
    here.page.get_by_role("button", name="Stop", exact=True).click()
    here.page.locator("#turns").get_by_text("Stopped.").wait_for()
    slow.go.set()
    assert here.page.get_by_role("button", name="Ask", exact=True).is_enabled()


def test_thirty_findings_stay_readable(visit, serve):
    here = visit(serve(Perceiver([Many(), Print()])))
    here.drop(tiny.picture("red").resize((900, 600)))
    here.seen()
    assert here.count("#findings tbody tr") == 31
    boxes = here.page.evaluate(PLATES)
    assert len(boxes) > 15
    width, height = here.page.evaluate(SIZE)
    for number, (x0, y0, x1, y1) in enumerate(boxes):
        assert x0 >= -0.5 and y0 >= -0.5 and x1 <= width + 0.5 and y1 <= height + 0.5
        assert not any(x0 < b[2] and b[0] < x1 and y0 < b[3] and b[1] < y1 for b in boxes[number + 1 :])
    here.page.get_by_role("button", name="thing number 29").hover()
    assert "thing number 29" in here.page.locator("#overlay").text_content()


def test_what_goes_wrong_is_said(visit):
    here, broken = visit(), {"name": "a.png", "mimeType": "image/png", "buffer": b"no picture"}
    here.page.get_by_label("choose a file").set_input_files(broken)
    here.page.get_by_role("alert").filter(has_text="not an image in a known format").wait_for()
    here.drop(tiny.picture("red"))
    here.seen()
    assert not here.page.get_by_role("alert").is_visible()
    here.wrong = [text for text in here.wrong if "422" not in text]  # the browser's own line about it
