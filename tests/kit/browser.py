"""A real, headless Chromium, as a person would use it."""

import base64
import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

WAIT_S: Final = 15.0
WIDE: Final = (1360, 1000)
NARROW: Final = (390, 844)
AXE: Final = Path(__file__).parent / "axe"
"""What names the version of axe-core, and its digest."""


def chromium() -> webdriver.Chrome:
    """Starts one, or skips the test where there is none."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium here: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    arguments = ["--headless=new", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # Chromium's own does not work for root
    for argument in arguments:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def axe(folder: Path) -> str:
    """The script that finds accessibility faults; skips the test where npm cannot get it."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm here, which gets axe-core: apt-get install npm")
    shutil.copytree(AXE, folder, dirs_exist_ok=True)
    got = subprocess.run(
        [npm, "ci", "--silent", "--ignore-scripts"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if got.returncode:
        pytest.skip(f"npm cannot get axe-core: {got.stderr[-300:]}")
    return (folder / "node_modules/axe-core/axe.min.js").read_text()


class Page:
    """The sandbox page, in words of what is on it."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver = driver
        self._url = url

    def open(self, path: str = "/", *, waits: bool = True) -> None:
        """Args: waits: for the passes, where the path is the sandbox's."""
        self.driver.get(self._url + path)
        if waits and not path.startswith("/docs"):
            self.until(lambda: self.rows() and self.text("live") == "live")

    @contextlib.contextmanager
    def on_every_page(self, script: str) -> Iterator[None]:
        """Runs a script before those of each page that is opened meanwhile."""
        made = self._cdp("Page.addScriptToEvaluateOnNewDocument", source=script)
        try:
            yield
        finally:
            self._cdp("Page.removeScriptToEvaluateOnNewDocument", identifier=made["identifier"])

    def until(self, condition: Any) -> Any:
        return WebDriverWait(self.driver, WAIT_S, 0.02).until(lambda _: condition())

    def by_id(self, name: str) -> WebElement:
        return self.driver.find_element(By.ID, name)

    def text(self, name: str) -> str:
        return str(
            self.driver.execute_script(
                "return document.getElementById(arguments[0]).textContent", name
            )
        )

    def rows(self) -> list[WebElement]:
        """The rows that exist, from the top: those in view, and a few around them."""
        return self.driver.find_elements(By.CSS_SELECTOR, "#rows .row")

    def show(self, status: str) -> None:
        """Filters by a status, and waits for its passes."""
        self.driver.find_element(By.CSS_SELECTOR, f"#filters [data-status='{status}']").click()
        self.until(lambda: self.statuses() <= {status.replace("_", " ")})

    def statuses(self) -> set[str]:
        """Those in the list, but for passes that stay only to be seen leaving."""
        return set(
            self.driver.execute_script(
                "return [...document.querySelectorAll('#rows .row:not(.leaving) .status')]"
                ".map((e) => e.textContent)"
            )
        )

    def choose(self, index: int = 0) -> str:
        """Puts a row's pass into the inspector. Returns its id."""
        row = self.rows()[index]
        pass_id = str(row.get_attribute("data-id"))
        row.find_element(By.CSS_SELECTOR, ".who").click()
        self.until(lambda: pass_id in self.text("pass"))
        self.until(lambda: self.by_id("cancel").is_displayed())  # a sheet comes from below
        return pass_id

    def pick(self, *indices: int) -> list[str]:
        """Ticks rows. Returns the ids of their passes."""
        ids = []
        for index in indices:
            row = self.rows()[index]
            row.find_element(By.CSS_SELECTOR, ".box").click()
            ids.append(str(row.get_attribute("data-id")))
        return ids

    def ids(self) -> list[str]:
        """The passes of the rows that exist, from the top."""
        script = "return [...document.querySelectorAll('#rows .row')].map((e) => e.dataset.id)"
        return list(self.driver.execute_script(script))

    def chosen(self) -> str:
        """The pass in the inspector."""
        return str(self.driver.find_element(By.CSS_SELECTOR, ".full .id").text)

    def timeline(self) -> list[str]:
        """What has happened to the pass in the inspector, oldest first."""
        script = "return [...document.querySelectorAll('.timeline li')].map((e) => e.textContent)"
        return list(reversed(self.driver.execute_script(script)))

    def find(self, text: str) -> None:
        """Searches for a text."""
        search = self.by_id("search")
        search.clear()
        search.send_keys(text)

    def click(self, name: str) -> None:
        self.by_id(name).click()

    def outcome(self, text: str) -> None:
        """Waits for what is said of the latest request."""
        self.until(lambda: text in self.latest())

    def latest(self) -> str:
        """The latest toast."""
        script = "return document.querySelector('#toasts .toast:last-child')?.textContent ?? ''"
        return str(self.driver.execute_script(script))

    def in_toast(self, text: str) -> WebElement:
        """A button of the latest toast."""
        path = f"//*[@id='toasts']/div[last()]//button[text()='{text}']"
        return self.driver.find_element(By.XPATH, path)

    def keys(self, *keys: str) -> None:
        chain = ActionChains(self.driver)
        for key in keys:
            chain.send_keys(key)
        chain.perform()

    def focused(self) -> WebElement:
        return self.driver.switch_to.active_element

    def dark(self, on: bool) -> None:
        features = [{"name": "prefers-color-scheme", "value": "dark" if on else "light"}]
        self._cdp("Emulation.setEmulatedMedia", features=features)

    def size(self, width: int, height: int) -> None:
        self._cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def screenshot(self, path: Path) -> None:
        shot = self._cdp("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def complaints(self) -> list[str]:
        """What the browser logged, but for answers that are no success: those are wanted."""
        return [
            str(entry["message"])
            for entry in self.driver.get_log("browser")  # type: ignore[no-untyped-call]
            if "Failed to load resource" not in entry["message"]
        ]

    def _cdp(self, command: str, **parameters: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, parameters)
