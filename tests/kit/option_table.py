"""The table of options in operating.md, drawn from their declaration; `make options` writes it."""

import re
from typing import Final

from idpass_server.config import OPTIONS, Settings
from idpass_server.options import Option
from kit.paths import ROOT

PAGE: Final = ROOT / "server/docs/operating.md"
TABLE: Final = re.compile(r"(?<=<!-- options -->\n).*?(?=<!-- end of options -->)", re.DOTALL)


def table() -> str:
    rows = [
        "| option | environment | default | value | |",
        "|---|---|---|---|---|",
        *(_row(declared, getattr(Settings, name)) for name, declared in OPTIONS.items()),
    ]
    return "\n".join(rows) + "\n"


def _row(declared: Option, default: object) -> str:
    shown = "" if default is None or default is False else f"`{default}`"
    value = ": ".join(filter(None, (declared.value, declared.range)))
    return f"| `{declared.flag}` | `{declared.variable}` | {shown} | {value} | {declared.help} |"


if __name__ == "__main__":
    PAGE.write_text(TABLE.sub(lambda _: table(), PAGE.read_text()))
