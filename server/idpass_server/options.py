"""What an option is: its flag and variable, its range, its help. `config` declares them all."""

import re
import sys
from dataclasses import field
from typing import Any, Final, NamedTuple, TypeVar

from idpass_server.failures import BadSetting

T = TypeVar("T")
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION: Final = re.compile(r"([1-9][0-9]{0,5})([smhd])")


def parse_duration(text: str) -> int:
    """Parses a duration such as "400d", "36h", "90m" or "30s". Returns seconds.

    Raises:
        ValueError: the text has another form.
    """
    match = _DURATION.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is no duration such as 400d, 36h, 90m or 30s")
    return int(match[1]) * _UNITS_S[match[2]]


class Option(NamedTuple):
    """How a setting is given on the command line and in the environment.

    Args:
        flag: its name, such as --max-calls.
        value: the form of its value, or the unit of a number; empty for a switch.
        help: a sentence or two for `--help` and the documents.
        least: the smallest number allowed, or None for any.
        most: the largest number allowed, or None for any.
        choices: the only values allowed; empty for any.
    """

    flag: str
    value: str
    help: str
    least: float | None
    most: float | None
    choices: tuple[str, ...]

    @property
    def variable(self) -> str:
        """The environment variable, such as IDPASS_MAX_CALLS for --max-calls."""
        return "IDPASS_" + self.flag.removeprefix("--").replace("-", "_").upper()

    @property
    def range(self) -> str:
        """The values allowed, in words: "1 to 256", "0 or more", "debug, info"; empty for any."""
        if self.choices:
            return ", ".join(self.choices)
        if self.least is None:
            return ""
        return f"{self.least} or more" if self.most is None else f"{self.least} to {self.most}"

    def check(self, value: Any) -> None:
        """Checks a value of the option; None, for an option that is not given, is always good.

        Raises:
            BadSetting: the value is out of range, or none of the choices.
        """
        if value is None:
            return
        if self.choices and value not in self.choices:
            raise BadSetting(f"{self.flag} {value} is none of {self.range}")
        most = sys.float_info.max if self.most is None else self.most
        # "Not a number" and infinity are in no range.
        if self.least is not None and not self.least <= value <= most:
            raise BadSetting(f"{self.flag} {value} is out of range: {self.range} ({self.value})")


def option(
    flag: str,
    default: T,
    value: str,
    help: str,  # noqa: A002 click's word for it
    *,
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] = (),
) -> T:
    """A dataclass field with its `Option`, whose arguments these are.

    Returns:
        what `dataclass` takes for a field; to the type checker it has the default's type.
    """
    declared = Option(flag, value, help, least, most, choices)
    made: T = field(default=default, metadata={"option": declared})
    return made
