"""The sandbox's race, its guide and its code panel, in a real browser and on real servers.

Promise: whatever races, and whatever breaks, one call changes the pass, one fee goes back, the
others are told, and a retry gets the first answer. What the page shows was measured and answered;
what it gives to copy does what the page did. Means: each show is played as a person would, and its
result is compared with what the service says, and each command is run. Blind spots: one browser,
and bash, Python and Node.js as they are installed here.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from idpass.v1 import id_pass_pb2 as pb
from kit.browser import NARROW, Page
from kit.http import Http, served
from kit.proving import times
from kit.staged import Staged, answers, staged
from kit.support import eventually, grpcurl_path
from kit.typescript import CLIENT, NODE
from kit.typescript import missing as missing_typescript

SIZE: Final = (1440, 900)
NASTY: Final = 'it\'s "quoted" \\ $HOME `id` $(id) %s !! \\u0041 \n\t<b>&amp; 🙂 é\u200f\u00a0--'
SEND: Final = """
const [path, body, done] = arguments;
import("/static/hub.js").then(({ send }) => send(path, body)).then(({ answer }) => done(answer));
"""
"""Sends a request as the page's own buttons do."""


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    """The page as it is opened; the browser has nothing to complain of in the end."""
    browser.size(*SIZE)
    browser.open("/")
    browser.driver.execute_script("sessionStorage.clear()")
    browser.open("/docs")  # an address that differs behind the # alone would open nothing
    browser.open("/")
    yield browser
    assert browser.complaints() == []


def find(page: Page, selector: str) -> WebElement:
    return page.driver.find_element(By.CSS_SELECTOR, selector)


def text_of(page: Page, selector: str) -> str:
    return str(find(page, selector).get_attribute("textContent"))


def play(page: Page, show: str) -> str:
    """Opens a show by its address, and plays it. Returns its result."""
    page.driver.execute_script("location.hash = arguments[0]", show)
    page.until(lambda: find(page, f"[data-show={show}]").get_attribute("aria-pressed") == "true")
    page.click("race-start")
    return result(page)


def result(page: Page) -> str:
    page.until(lambda: find(page, "#race .result").get_attribute("class") != "result")
    return text_of(page, "#race .result")


def rows(page: Page) -> list[list[str]]:
    """The table that says what the lanes show."""
    script = """return [...document.querySelectorAll('#race tbody tr')]
        .map((row) => [...row.cells].map((cell) => cell.textContent))"""
    return list(page.driver.execute_script(script))


def events_of(sandbox: Http, pass_id: str) -> list[pb.IdPassEvent]:
    return list(sandbox.events(id=pass_id))


def newest(sandbox: Http) -> pb.IdPass:
    return sandbox.page(page_size=1).id_passes[0]


# -- the race


@pytest.mark.parametrize("callers", [2, 5, 20])
def test_of_many_callers_one_cancels_and_the_others_are_told(
    page: Page, sandbox: Http, callers: int
) -> None:
    page.driver.execute_script("location.hash = 'race'")
    page.until(lambda: find(page, "#race .callers").is_displayed())
    script = "document.querySelector(`#race input[value='${arguments[0]}']`).click()"
    page.driver.execute_script(script, callers)
    before = sandbox.account()
    page.click("race-start")
    assert result(page) == f"1 cancelled · 1 refund · {callers - 1} told the outcome"
    raced = newest(sandbox)
    assert (raced.status, raced.fee_refunded) == (pb.ID_PASS_STATUS_CANCELLED, True)
    account = sandbox.account()
    assert account.last_sequence == before.last_sequence + 2  # registered, cancelled
    assert account.slots_in_use == before.slots_in_use
    table = rows(page)
    assert [row[0] for row in table] == [f"Caller {n + 1}" for n in range(callers)]
    assert sum(row[3] == "told: already cancelled" for row in table) == callers - 1
    assert len(page.driver.find_elements(By.CSS_SELECTOR, "#race .lane")) == callers
    line = find(page, "#race .mark")
    lanes = find(page, "#race .lanes ol")
    assert line.rect["y"] <= lanes.rect["y"]
    assert line.rect["height"] >= lanes.rect["height"]


def test_a_chosen_pass_is_raced_for_and_its_name_is_no_markup(page: Page, sandbox: Http) -> None:
    name = "<img src=x onerror=alert(1)> & 🙂"
    pass_id = sandbox.register(applicant_reference=name).id_pass.id
    page.find("onerror")
    page.until(lambda: len(page.rows()) == 1)
    page.choose()
    page.click("race-open")
    assert name in text_of(page, "#race .pitch")
    page.click("race-start")
    assert result(page).startswith("1 cancelled · 1 refund")
    assert sandbox.get(pass_id).fee_refunded
    assert not page.driver.find_elements(By.CSS_SELECTOR, "#race img, #inspector img, #rows img")


def test_cancel_and_completion_never_both_win(page: Page, sandbox: Http) -> None:
    won = {"cancelled": 0, "complete": 0}
    for _ in range(times(6, 1)):
        said = play(page, "completion")
        raced = newest(sandbox)
        if said.startswith("The cancel won"):
            assert said == "The cancel won: 1 cancelled, the fee is kept · 1 told the outcome"
            assert (raced.status, raced.fee_refunded) == (pb.ID_PASS_STATUS_CANCELLED, False)
            won["cancelled"] += 1
            assert ["Completion", "told: already cancelled"] in [[r[0], r[3]] for r in rows(page)]
        else:
            assert said.startswith("The completion won: 1 complete")
            assert raced.status == pb.ID_PASS_STATUS_COMPLETE
            won["complete"] += 1
            assert ["Cancel", "told: already complete"] in [[r[0], r[3]] for r in rows(page)]
    tally = f"the cancel won {won['cancelled']}, the completion {won['complete']}"
    assert tally in text_of(page, "#race .also")


# -- what breaks


@pytest.mark.parametrize("show", ["lost", "killed"])
def test_a_retry_gets_the_first_answer(page: Page, show: str) -> None:
    said = play(page, show)
    assert said == "The retry got the first answer · AUD 4.50 refunded in all"
    first, second = rows(page)
    assert first[3] == "no answer: outcome unknown"
    assert second[3] == "the first answer again"
    if show == "killed":
        lanes = [each.text for each in page.driver.find_elements(By.CSS_SELECTOR, "#race .lane")]
        processes = re.findall(r"Process (\d+)", " ".join(lanes))
        assert len(set(processes)) == 2
        assert "503" in text_of(page, "#race .also")


def test_callers_at_a_slow_disk_share_its_commits(page: Page) -> None:
    said = play(page, "slow")
    match = re.fullmatch(r"20 cancelled in (\d+) commits of ([\d, ]+)", said)
    assert match is not None, said
    sizes = [int(each) for each in match[2].split(",")]
    assert (len(sizes), sum(sizes)) == (int(match[1]), 20)
    assert len(sizes) < 20
    marks = page.driver.find_elements(By.CSS_SELECTOR, "#race .mark")
    assert [each.text for each in marks] == [str(size) for size in sizes]


def test_a_cancel_makes_room_where_all_slots_are_taken(page: Page) -> None:
    said = play(page, "slots")
    assert said.startswith("5 slots filled · 1 refused with NO_FREE_SLOT")
    assert said.endswith("5 of 5 in use again")
    last = [row[3] for row in rows(page)][-3:]
    assert last == ["refused: NO_FREE_SLOT", "cancelled, AUD 4.50 back", "registered"]


def test_shows_in_two_tabs_take_turns(page: Page) -> None:
    first = page.driver.current_window_handle
    page.driver.execute_script("location.hash = 'killed'")
    page.until(lambda: find(page, "#race-start").is_displayed())
    page.click("race-start")
    page.driver.switch_to.new_window("tab")
    try:
        page.size(*SIZE)
        page.open("/")
        assert play(page, "lost").startswith("The retry got the first answer")
    finally:
        page.driver.close()
        page.driver.switch_to.window(first)
    assert result(page).startswith("The retry got the first answer")


def test_a_show_without_its_server_says_so(page: Page) -> None:
    page.driver.execute_script(STAGE_CUT_OFF)
    said = play(page, "killed")
    assert said == "The show’s server has ended."
    assert find(page, "#race-start").is_enabled()


STAGE_CUT_OFF = """
const { fetch } = window;
window.fetch = async (path, options) => {
  if (path !== "/sandbox/stage") return fetch(path, options);
  return new Response('{"event":"stage","stage":1,"time_ms":0}\\n');
};
"""


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Http]:
    """A sandbox of a test's own, which may be killed."""
    with served(tmp_path / "not-used.db", "--sandbox") as running:
        yield running


def begun(alone: Http) -> contextlib.AbstractContextManager[Any]:
    return alone.http.stream("POST", "/sandbox/stage", json={"slow_ms": 10})


def test_the_shows_server_does_not_outlive_a_sandbox_that_is_killed(
    alone: Http, tmp_path: Path
) -> None:
    with contextlib.suppress(Exception), begun(alone) as response:
        stage = Staged(alone, response)
        listen = stage.until("serving")["listen"]
        assert answers(listen)
        alone.process.send_signal(signal.SIGKILL)
        response.read()
    eventually(lambda: not answers(listen))
    eventually(lambda: list(tmp_path.glob("*/stage-*")) == [])


def test_a_sandbox_that_is_stopped_ends_its_show(alone: Http, tmp_path: Path) -> None:
    with begun(alone) as response:
        stage = Staged(alone, response)
        listen = stage.until("serving")["listen"]
        alone.signal(signal.SIGTERM)
        assert stage.ended()
    assert alone.wait() == 0
    assert not answers(listen)
    assert list(tmp_path.iterdir()) == []


def test_one_show_follows_another(sandbox: Http) -> None:
    for n in range(times(3, 1)):
        with staged(sandbox, slots=n + 1) as stage:
            stage.until("serving")
            assert stage.account()["slot_limit"] == n + 1


# -- with little motion, and without a mouse


def test_with_reduced_motion_nothing_moves(page: Page) -> None:
    features = [{"name": "prefers-reduced-motion", "value": "reduce"}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    try:
        page.driver.execute_script(COUNT_ANIMATIONS)
        assert play(page, "race").startswith("1 cancelled")
        assert page.driver.execute_script("return window.animated") == 0
    finally:
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    page.driver.execute_script(COUNT_ANIMATIONS)
    assert play(page, "race").startswith("1 cancelled")
    assert page.driver.execute_script("return window.animated") > 20


COUNT_ANIMATIONS = """
window.animated = 0;
window.animate ??= Element.prototype.animate;
Element.prototype.animate = function (...given) {
  window.animated += 1;
  return window.animate.apply(this, given);
};
"""


def test_the_keyboard_is_enough_to_race_and_to_look_at_a_lane(page: Page) -> None:
    page.show("new")
    page.choose()
    find(page, "#race-open").send_keys(Keys.ENTER)
    assert page.focused().text == "Race"
    find(page, "#race-start").send_keys(Keys.ENTER)
    assert result(page).startswith("1 cancelled")
    lane = page.driver.find_elements(By.CSS_SELECTOR, "#race .lane button")[7]
    lane.send_keys(Keys.ENTER)
    page.until(lambda: "PASS_ALREADY_CANCELLED" in text_of(page, "#race-code .line"))
    lane.send_keys("c")  # no key of the page below
    lane.send_keys(Keys.ESCAPE)
    assert not find(page, "#race").is_displayed()
    assert page.focused().get_attribute("id") == "race-open"
    assert "#" not in page.driver.current_url


@pytest.mark.parametrize("show", ["race", "killed", "slow"])
def test_a_phone_has_room_for_the_lanes(page: Page, show: str) -> None:
    page.size(*NARROW)
    play(page, show)
    width = "return document.documentElement.scrollWidth"
    assert page.driver.execute_script(width) <= NARROW[0]
    for each in page.driver.find_elements(By.CSS_SELECTOR, "#race .said"):
        assert each.rect["x"] >= 0
        assert each.rect["x"] + each.rect["width"] <= NARROW[0]


# -- the guide


def act(page: Page, label: str) -> None:
    page.until(lambda: text_of(page, "#guide .act") == label and find(page, ".act").is_enabled())
    find(page, "#guide .act").click()


def said(page: Page, text: str) -> None:
    page.until(lambda: text in text_of(page, "#guide .said"))


def test_the_guide_leads_through_six_steps(page: Page, sandbox: Http) -> None:
    act(page, "Choose a new pass")
    said(page, "is new")
    page.click("cancel")
    said(page, "counted back")
    act(page, "Next: Again")
    act(page, "Cancel it again")
    said(page, "Refused, yet it settles the matter")
    page.outcome("was refunded then")
    act(page, "Next: Race")
    act(page, "Race 20 callers")
    said(page, "They meet at one commit")
    find(page, "#race header button").click()
    act(page, "Next: Replay")
    act(page, "Replay a cancel")
    said(page, "The first answer again")
    assert text_of(page, "#code mark .key").startswith('"fee_refunded"')
    act(page, "Next: Supersede")
    slots = sandbox.account().slots_in_use
    act(page, "Issue one again")
    said(page, "linked in the inspector")
    assert sandbox.account().slots_in_use == slots
    act(page, "Next: Clean up")
    before = sandbox.account()
    act(page, "Preview")
    said(page, "Only checked so far")
    found = re.search(r"Idle for 3 days: (\d+) passes, AUD ([\d.]+) back", text_of(page, ".said"))
    assert found is not None
    assert sandbox.account() == before
    act(page, f"Cancel {found[1]} passes")
    said(page, f"{found[1]} passes cancelled, AUD {found[2]} back")
    after = sandbox.account()
    assert before.slots_in_use - after.slots_in_use == int(found[1])
    done = page.driver.find_elements(By.CSS_SELECTOR, ".step.done")
    assert len(done) == 6
    page.driver.refresh()
    page.until(lambda: len(page.driver.find_elements(By.CSS_SELECTOR, ".step.done")) == 6)
    page.driver.execute_script("location.hash = 'cleanup'")
    act(page, "Preview")
    said(page, "No pass has been idle for 3 days")


@pytest.mark.parametrize("step", ["cancel", "again", "race", "replay", "supersede", "cleanup"])
def test_an_address_leads_to_a_step(page: Page, step: str) -> None:
    page.open("/docs")
    page.open(f"/#{step}")
    current = find(page, ".step[aria-current=step]")
    assert current.get_attribute("data-step") == step
    assert find(page, "#race").is_displayed() == (step == "race")


@pytest.mark.parametrize("address", ["nothing", "<b>", "constructor", "__proto__", "%00"])
def test_an_address_that_leads_nowhere_does_nothing(page: Page, address: str) -> None:
    page.open("/docs")
    page.open(f"/#{address}")
    assert find(page, ".step[aria-current=step]").get_attribute("data-step") == "cancel"
    assert not find(page, "#race").is_displayed()


# -- the code panel


def shown(page: Page, language: str) -> str:
    """The latest request in a language."""
    label = f"//*[@id='code']//label[text()='{language}']"
    page.driver.find_element(By.XPATH, label).click()
    return text_of(page, "#code .request")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the TypeScript client is installed, if it is built here."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "node_modules").mkdir()
    (folder / "node_modules/idpass-client").symlink_to(CLIENT)
    return folder


def run(command: str, language: str, project: Path) -> str:
    """What comes of a command that was copied from the page."""
    if language == "TypeScript" and (why := missing_typescript()):
        pytest.skip(why)
    words = {
        "Python": [sys.executable, "-c"],
        # It has no types that would have to be taken away.
        "TypeScript": [NODE, "--input-type=module", "--eval"],
    }.get(language, ["bash", "-c"])
    path = os.environ["PATH"]
    if language == "grpcurl":
        path = f"{Path(grpcurl_path()).parent}{os.pathsep}{path}"
    done = subprocess.run(
        [*words, command],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"PATH": path, "LC_ALL": "C.UTF-8", "no_proxy": "*"},
    )
    return done.stdout + done.stderr


LANGUAGES = ["curl", "grpcurl", "Python", "TypeScript"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_copied_command_does_exactly_what_the_page_did(
    page: Page, sandbox: Http, language: str, project: Path
) -> None:
    """The service compares the content: were a character another, the request_id were reused."""
    name = NASTY.replace("\n", "").replace("\t", "")
    requests: list[tuple[str, dict[str, Any]]] = [
        ("/idpass/register", {"request_id": f"r-{language}", "applicant_reference": name}),
    ]
    page.driver.execute_async_script(SEND, *requests[0])
    again = run(shown(page, language), language, project)
    assert re.search(r'replayed"?[:=] ?[tT]rue', again), again
    pass_id = newest(sandbox).id
    assert newest(sandbox).applicant_reference == name
    for path, body in [
        ("/idpass/advance", {"id": pass_id, "to_status": "opened", "request_id": f"a-{language}"}),
        (
            "/idpass/cancel",
            {"id": pass_id, "request_id": f"c'{language}$`", "note": NASTY, "reason": "other"},
        ),
    ]:
        page.driver.execute_async_script(SEND, path, body)
        again = run(shown(page, language), language, project)
        assert re.search(r'replayed"?[:=] ?[tT]rue', again), again
    assert sandbox.get(pass_id).cancellation.note == NASTY


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_copied_batch_and_a_copied_list_do_the_same(
    page: Page, sandbox: Http, language: str, project: Path
) -> None:
    ids = [sandbox.register().id_pass.id for _ in range(3)]
    items = [{"id": each, "note": NASTY, "request_id": f"{language}-{each}"} for each in ids]
    page.driver.execute_async_script(SEND, "/idpass/batch-cancel", {"requests": items})
    again = run(shown(page, language), language, project)
    # The clients give each pass a request_id of their own.
    client = language in {"Python", "TypeScript"}
    wanted = "AlreadyCancelled" if client else r'"replayed": ?true'
    assert len(re.findall(wanted, again)) >= 3, again
    listed = {"statuses": ["cancelled"], "page_size": 100}
    page.driver.execute_async_script(SEND, "/idpass/list", listed)
    assert set(ids) <= set(
        re.findall(r"[0-9a-f-]{36}", run(shown(page, language), language, project))
    )


def test_an_error_is_facts_first_and_its_json_is_folded(page: Page) -> None:
    page.show("complete")
    page.choose()
    page.click("cancel")
    page.outcome("a complete pass cannot be cancelled")
    panel = find(page, "#code")
    assert "PASS_COMPLETE" in panel.find_element(By.CSS_SELECTOR, "dl").text
    folded = panel.find_element(By.CSS_SELECTOR, ".answer details")
    assert folded.get_attribute("open") is None
    assert '"@type"' in str(folded.get_attribute("textContent"))


def test_what_callers_keep_is_marked_and_the_command_can_be_copied(page: Page) -> None:
    page.show("new")
    page.choose()
    page.click("cancel")
    page.outcome("Cancelled from new")
    script = "return [...document.querySelectorAll('#code mark .key')].map((e) => e.textContent)"
    assert set(page.driver.execute_script(script)) == {'"reference"', '"fee_refunded"'}
    grant = {"origin": page.driver.execute_script("return location.origin")}
    permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"]
    page.driver.execute_cdp_cmd("Browser.grantPermissions", grant | {"permissions": permissions})
    text = shown(page, "curl")
    find(page, "#code .copy").click()
    page.until(lambda: text_of(page, "#code .copy") == "Copied")
    read = "const done = arguments[0]; navigator.clipboard.readText().then(done)"
    assert page.driver.execute_async_script(read) == text
