"""Changes of inputs that libFuzzer, which knows bytes only, hardly ever makes."""

import copy
import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

Mutate = Callable[[bytes, random.Random], bytes]

_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?|[\w-]+|\s+|.', re.DOTALL)
_VALUES: Final = (b"true", b"false", b"null", b"0", b"-1", b"1.5", b'""', b"[]", b"{}", b'"x"')


def of_text(words: Sequence[bytes]) -> Mutate:
    """Changes tokens: strings, numbers and names. Args: words: that may come in."""
    new = (*words, *_VALUES)

    def mutate(data: bytes, chance: random.Random) -> bytes:
        tokens: list[bytes] = _TOKEN.findall(data)
        if not tokens:
            return chance.choice(new)
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            at = chance.randrange(len(tokens))
            kind = chance.randrange(6)
            if kind < 2:
                tokens[at] = chance.choice(new)
            elif kind == 2:
                tokens[at] = chance.choice(tokens)
            elif kind == 3:
                tokens.insert(at, chance.choice(new))
            elif kind == 4:
                tokens[at] = _inside(tokens[at], chance.choice(new), chance)
            elif len(tokens) > 1:
                del tokens[at]
        return b"".join(tokens)

    return mutate


_PLAIN: Final[tuple[Any, ...]] = (
    None,
    True,
    False,
    0,
    -1,
    1.5,
    2**63,
    "",
    "x",
    "\ud800",
    "\n",
    [],
    {},
)
_ODD: Final[tuple[Any, ...]] = (
    *(1.0, 14, 1e30, 2**63 - 1, -(2**63), 10**31, "1", "x" * 129, "new", "in_progress"),
    *("\0", "\u202e", "\x85", "\u2028", "é", "\N{GRINNING FACE}", "{0}", "%s", "0198c0de"),
    *("abandoned", "2026-11-23T09:30:00Z", "0001-01-01T00:00:00+23:59", ["new"], [1], [[]]),
)
"""Values in JSON that mean something, or look as if they did."""


def of_message(words: Sequence[bytes], names: Sequence[str], *, heads: float = 0.15) -> Mutate:
    """Changes a head by its tokens, and a JSON body by its values as well.

    Args:
        words: that may come into the text.
        names: of values that may come into an object.
        heads: share of the changes that are to the head, where there is a body.
    """
    of_words = of_text(words)

    def mutate(data: bytes, chance: random.Random) -> bytes:
        head, line, body = data.partition(b"\n\n")
        if not body or chance.random() < heads:
            return of_words(head, chance) + line + body
        try:
            value = json.loads(body)
            if not isinstance(value, dict | list) or not value or chance.random() < 0.1:
                value = {chance.choice(names): _odd(chance)}
            _change(value, names, chance)
            return head + line + json.dumps(value).encode()
        except (ValueError, RecursionError):
            return head + line + of_words(body, chance)

    return mutate


def _odd(chance: random.Random) -> Any:
    return copy.copy(chance.choice(_PLAIN if chance.random() < 0.7 else _ODD))


def _change(value: Any, names: Sequence[str], chance: random.Random) -> None:
    """Changes a value somewhere in an object or an array, which has one."""
    keys = list(value if isinstance(value, dict) else range(len(value)))
    key = chance.choice(keys)
    if isinstance(value[key], dict | list) and value[key] and chance.random() < 0.7:
        _change(value[key], names, chance)
    elif isinstance(value, dict) and chance.random() < 0.2:
        value[chance.choice(names)] = _odd(chance)
    elif chance.random() < 0.1:
        del value[key]
    else:
        value[key] = _odd(chance)


def _inside(token: bytes, word: bytes, chance: random.Random) -> bytes:
    """A token with a word in it, within its quotes."""
    quotes = token[:1] == b'"'
    at = chance.randrange(quotes, max(quotes, len(token) - quotes) + 1)
    return token[:at] + word + token[at:]
