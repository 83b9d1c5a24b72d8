"""What is measured of a page that a person looks at: faults, contrast, movement, a picture."""

import base64
import json
import os
import re
from pathlib import Path
from typing import Any, Final

from kit.browser import Page

WIDTHS: Final = {1440: 900, 1024: 768, 390: 844}
"""Sizes of the window, CSS pixels: height by width."""
FOLDER: Final = os.environ.get("SCREENSHOTS", "")
"""Where pictures are kept; empty keeps none."""
SHIFT: Final = 0.02
"""Limit of the layout's movement that nobody caused, as a share of the window (Chromium's CLS)."""
SERIOUS: Final = {"serious", "critical"}

WATCH_SHIFTS: Final = """
window.shifts = [];
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) {
    if (entry.hadRecentInput) continue;
    const name = ({ node }) => node && `${node.nodeName}#${node.id}.${node.className}`;
    window.shifts.push({ value: entry.value, what: entry.sources.map(name) });
  }
}).observe({ type: "layout-shift", buffered: true });
"""
"""Runs before a page's own scripts, and notes each movement that follows no input."""

AXE_RUN: Final = """
const done = arguments[0];
axe.run({ resultTypes: ["violations", "incomplete"] })
  .then(({ violations, incomplete }) => done({ violations, incomplete }), (e) => done(String(e)));
"""
SETTLED: Final = """
const done = arguments[0];
const moving = () => document.getAnimations().filter((each) =>
  each.playState === "running" && each.effect.getComputedTiming().iterations !== Infinity);
Promise.allSettled(moving().map((each) => each.finished))
  .then(() => requestAnimationFrame(() => requestAnimationFrame(done)));
"""
"""Waits for what moves to come to rest: a colour on its way is no colour to measure."""


def settle(page: Page) -> None:
    page.driver.execute_async_script(SETTLED)


def faults(page: Page, axe_script: str) -> list[dict[str, Any]]:
    """The serious faults that axe-core finds, contrast among them, each with where it is."""
    settle(page)
    if not page.driver.execute_script("return 'axe' in window"):
        page.driver.execute_script(axe_script)
    found = page.driver.execute_async_script(AXE_RUN)
    assert isinstance(found, dict), found
    return [
        {"id": each["id"], "help": each["help"], "where": [_where(node) for node in each["nodes"]]}
        for each in found["violations"]
        if each["impact"] in SERIOUS
    ]


def _where(node: dict[str, Any]) -> dict[str, Any]:
    told = [check["message"] for kind in ("any", "all", "none") for check in node[kind]]
    return {"target": node["target"], "html": node["html"][:200], "told": told[:2]}


def shift(page: Page) -> tuple[float, list[Any]]:
    """How far the layout has moved by itself since the page was opened, and what moved."""
    shifts = page.driver.execute_script("return window.shifts")
    return sum(each["value"] for each in shifts), shifts


def overflow(page: Page) -> list[str]:
    """What stands out of the window at its right, where one has to scroll sideways."""
    return list(page.driver.execute_script(OVERFLOW))


OVERFLOW: Final = """
const width = document.documentElement.clientWidth;
if (document.documentElement.scrollWidth <= width) return [];
return [...document.querySelectorAll("body *")]
  .filter((each) => each.getBoundingClientRect().right > width + 1)
  .slice(0, 5).map((each) => `${each.nodeName}#${each.id}.${each.className}`);
"""


def photograph(page: Page, name: str) -> None:
    """Keeps a picture of the window under this name, if SCREENSHOTS names a folder."""
    if FOLDER:
        path = Path(FOLDER) / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shot = page.driver.execute_cdp_cmd("Page.captureScreenshot", {})
        path.write_bytes(base64.b64decode(shot["data"]))


def told(found: list[Any]) -> str:
    """Faults, for whoever has to mend them."""
    return json.dumps(found, indent=1, ensure_ascii=False)[:5_000]


# -- colours

_VARIABLE: Final = re.compile(r"--([\w-]+):\s*(#[0-9a-fA-F]{3,6})\s*;")


def palettes(css: str) -> dict[str, dict[str, str]]:
    """The colour variables of a stylesheet, as they are in the light and in the dark."""
    light_css, dark, dark_css = css.partition("prefers-color-scheme: dark")
    assert dark
    light = dict(_VARIABLE.findall(light_css))
    return {"light": light, "dark": {**light, **dict(_VARIABLE.findall(dark_css))}}


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, from 1 to 21 (WCAG 2.2, "contrast ratio")."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    digits = colour.removeprefix("#")
    if len(digits) == 3:
        digits = "".join(digit * 2 for digit in digits)
    channels = (int(digits[start : start + 2], 16) / 255 for start in (0, 2, 4))
    red, green, blue = (
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
