"""The scenarios that every client runs, with the Python client, sync and async: scenarios.json."""

import json
import re
import uuid
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import idpass
from idpass import IdPassError, Money
from kit.client import Connect

TABLE = json.loads(Path(__file__).with_name("scenarios.json").read_text())
ITERATING = {"list", "watch", "cancel_many"}
POSITIONAL = {"cancel_many": ("ids",), "advance": ("id", "to_status"), "list": (), "register": ()}


def filled(value: Any, kept: Mapping[str, Any]) -> Any:
    """A value of the table with what it refers to put in."""
    if isinstance(value, dict):
        return {name: filled(each, kept) for name, each in value.items()}
    if isinstance(value, list):
        return [filled(each, kept) for each in value]
    if not isinstance(value, str) or not value.startswith("$"):
        return value
    if value == "$uuid":
        return str(uuid.uuid4())
    first, *path = value[1:].split(".")
    found = kept[first]
    for name in path:
        found = found[int(name)] if name.isdecimal() else getattr(found, name)
    return found


def compare(expected: Any, found: Any, where: str) -> None:
    if isinstance(expected, dict):
        for name, each in expected.items():
            compare(each, getattr(found, name), f"{where}.{name}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, (each, item) in enumerate(zip(expected, found, strict=True)):
            compare(each, item, f"{where}.{number}")
    else:
        assert (str(found) if isinstance(found, Money) else found) == expected, where


def call(client: Any, step: Mapping[str, Any], kept: Mapping[str, Any]) -> Any:
    method = step["call"]
    arguments = filled(step.get("with", {}), kept)
    names = POSITIONAL.get(method, ("id",))
    positional = [arguments.pop(name) for name in names if name in arguments]
    answer = getattr(client, method)(*positional, **arguments)
    if method not in ITERATING:
        return answer
    items = list(islice(answer, step.get("take")))
    getattr(answer, "close", lambda: None)()
    return items


def refused(step: Mapping[str, Any], client: Any, kept: Mapping[str, Any]) -> None:
    expected = step["fails"]
    if expected.get("local"):
        with pytest.raises((IdPassError, TypeError, ValueError), match=re.escape(expected["says"])):
            call(client, step, kept)
        return
    with pytest.raises(IdPassError) as raised:
        call(client, step, kept)
    error = raised.value
    assert type(error) is getattr(idpass, expected["class"])
    assert (error.code.name, error.reason) == (expected["code"], expected["reason"])
    assert uuid.UUID(error.reference)
    has = expected.get("has", {})
    if "allowed" in has:  # in no order
        has = has | {"allowed": sorted(has["allowed"])}
        assert sorted(error.allowed) == has.pop("allowed")  # type: ignore[attr-defined]
    compare(filled(has, kept), error, "error")


@pytest.mark.parametrize("scenario", TABLE["scenarios"], ids=lambda each: each["name"])
def test_a_scenario_goes_as_the_table_says(
    connect: Connect, address: str, scenario: Mapping[str, Any]
) -> None:
    client = connect(address)
    kept: dict[str, Any] = {}
    for number, step in enumerate(scenario["steps"]):
        if "fails" in step:
            refused(step, client, kept)
            continue
        answer = call(client, step, kept)
        if "as" in step:
            kept[step["as"]] = answer
        if "gives" in step:
            compare(filled(step["gives"], kept), answer, f"step {number}, {step['call']}")
