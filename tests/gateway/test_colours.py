"""The colours of the pages, computed from the stylesheet: what stands on what can be read."""

import re

import pytest

from idpass_server.gateway import app
from kit.looks import contrast, palettes

CSS = (app.STATIC / "base.css").read_text()
GROUNDS = ("ground", "surface", "sunken", "pick")
INKS = ("ink", "muted", "accent")
STATUSES = ("new", "opened", "in_progress", "complete", "expired", "failed", "cancelled")
TEXT, LARGE = 4.5, 3.0
"""Least contrast of text, and of what is no text but has to be seen (WCAG 2.2 AA)."""
PAIRS = [
    *((ink, ground, TEXT) for ink in (*INKS, *STATUSES) for ground in GROUNDS),
    ("on-accent", "accent", TEXT),
    *(("edge", ground, LARGE) for ground in GROUNDS),
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_stands_on_what_can_be_read(scheme: str) -> None:
    colours = palettes(CSS)[scheme]
    faint = [
        f"--{one} on --{other}: {ratio:.2f}, wanted {least}"
        for one, other, least in PAIRS
        if (ratio := contrast(colours[one], colours[other])) < least
    ]
    assert faint == []


def test_other_files_take_their_colours_from_this_one() -> None:
    for file in app.STATIC.glob("*.css"):
        if file.name != "base.css":
            declared = " ".join(re.findall(r"{([^{}]*)}", file.read_text()))
            assert re.findall(r"#[0-9a-fA-F]{3,8}\b(?=[\s;,)])", declared) == [], file.name


def test_contrast_is_that_of_the_guidelines() -> None:
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#fff") == pytest.approx(4.48, abs=0.01)
