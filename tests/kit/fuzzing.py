"""Payloads that no client would send: random bytes, mutated requests, fields of random values.

All from one random.Random, so that a seed says which. Where a payload is a valid request after
all, the only passes it can name are the few given, so that little but RegisterIdPass changes
anything.
"""

import random
from collections.abc import Callable
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from idpass.v1 import id_pass_service_pb2, webhook_service_pb2

SERVICES: Final = (
    id_pass_service_pb2.DESCRIPTOR.services_by_name["IdPassService"],
    webhook_service_pb2.DESCRIPTOR.services_by_name["WebhookService"],
)
METHODS: Final = {method.name: method for service in SERVICES for method in service.methods}

_INTEGERS: Final = (0, 1, -1, 2, 7, 14, 15, 1_000, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63))
_TEXTS: Final = (
    *("", " ", "\0", "\x7f", "\n", "é", "\U0010ffff", "\u202e", "\ufeff", "NULL", "0", "-1"),
    *("' OR 1=1 --", "%s%n", "../../etc/passwd", "{}", "{0}", "a" * 128, "a" * 129, "é" * 501),
    *("00000000-0000-7000-8000-000000000000", "x" * 10_000),
)


class Payloads:
    """
    Args:
        seed: decides everything; or a generator to go on with.
        ids: of passes that exist.
    """

    def __init__(self, seed: int | random.Random, ids: list[str]) -> None:
        self._chance = random.Random(seed) if isinstance(seed, int) else seed
        self._ids = ids
        self._ways: list[Callable[[str], bytes]] = [
            self._bytes,
            self._fields,
            self._mutated,
            self._mutated,
            self._wire,
        ]

    def next(self) -> tuple[str, bytes]:
        """A method and what it is sent."""
        method = self._chance.choice(list(METHODS))
        return method, self._chance.choice(self._ways)(method)

    def _bytes(self, _method: str) -> bytes:
        return self._chance.randbytes(self._chance.choice((0, 1, 2, 5, 30, 300)))

    def _fields(self, method: str) -> bytes:
        """A message that parses, with values as they come."""
        message = GetMessageClass(METHODS[method].input_type)()
        self._fill(message, depth=0)
        return message.SerializeToString()

    def change(self, message: Any) -> None:
        """Gives one field of a message a random value, or none."""
        fields = message.DESCRIPTOR.fields
        if not fields:
            return
        field = self._chance.choice(fields)
        if self._chance.random() < 0.7:
            message.ClearField(field.name)
        if self._chance.random() < 0.9:
            self._set(message, field, depth=0)

    def _fill(self, message: Any, depth: int) -> None:
        for field in message.DESCRIPTOR.fields:
            if self._chance.random() < 0.4:
                continue
            self._set(message, field, depth)

    def _set(self, message: Any, field: FieldDescriptor, depth: int) -> None:
        values = [self._value(field, depth) for _ in range(self._chance.choice((1, 1, 3)))]
        values = [value for value in values if value is not None]
        if not values:
            return
        if field.is_repeated:
            getattr(message, field.name).extend(values)
        elif isinstance(values[0], Message):
            getattr(message, field.name).CopyFrom(values[0])
        else:
            setattr(message, field.name, values[0])

    def _value(self, field: FieldDescriptor, depth: int) -> Any:
        chance = self._chance
        if field.message_type is not None:
            if depth > 2:
                return None
            message = GetMessageClass(field.message_type)()
            self._fill(message, depth + 1)
            return message
        # Mostly what could be meant, or hardly anything would come past the first check.
        plausible = chance.random() < 0.8
        if field.type == FieldDescriptor.TYPE_BOOL:
            return chance.random() < 0.5
        if field.type == FieldDescriptor.TYPE_STRING:
            if plausible and field.name in {"id", "supersedes"}:
                return chance.choice(self._ids)
            return str(chance.randrange(1_000)) if plausible else chance.choice(_TEXTS)
        return self._integer(field, plausible=plausible)

    def _integer(self, field: FieldDescriptor, *, plausible: bool) -> int:
        chance = self._chance
        if plausible:
            return chance.randrange(len(field.enum_type.values if field.enum_type else _INTEGERS))
        bits = 63 if field.type == FieldDescriptor.TYPE_INT64 else 31
        value = chance.choice((*_INTEGERS, chance.getrandbits(bits)))
        return int(max(-(2**bits), min(2**bits - 1, value)))

    def _mutated(self, method: str) -> bytes:
        """A message with bytes changed, cut out, repeated or put in."""
        body = bytearray(self._fields(method)[:3_000])
        chance = self._chance
        for _ in range(chance.choice((1, 1, 2, 8))):
            at = chance.randrange(len(body) + 1)
            kind = chance.randrange(5)
            if kind == 0 and at < len(body):
                body[at] ^= 1 << chance.randrange(8)
            elif kind == 1:
                del body[at : at + chance.randrange(1, 9)]
            elif kind == 2:
                body[at:at] = body[max(0, at - 20) : at]
            elif kind == 3:
                body[at:at] = chance.choice((b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\0\0\0"))
            else:
                body = body[:at]
        return bytes(body)

    def _wire(self, method: str) -> bytes:
        """Wire format as no encoder writes it: known and unknown fields of any wire type."""
        chance = self._chance
        body = b"" if chance.random() < 0.5 else self._fields(method)[:3_000]
        for _ in range(chance.randrange(1, 6)):
            number = chance.choice((1, 2, 3, 4, 5, 6, 7, 8, 15, 16, 536_870_911))
            body += self._field(number, chance.randrange(8))
        return body

    def _field(self, number: int, wire_type: int) -> bytes:
        chance = self._chance
        key = varint(number << 3 | wire_type)
        if wire_type == 0:
            return key + chance.choice((varint(chance.getrandbits(64)), b"\xff" * 10 + b"\x01"))
        if wire_type == 1:
            return key + chance.randbytes(8)
        if wire_type == 2:
            content = chance.choice((b"\xff\xfe", b"\xed\xa0\x80", self._ids[0].encode(), b""))
            length = chance.choice((len(content), len(content), 2**31 - 1, 2**35))
            return key + varint(length) + content
        if wire_type == 3:
            depth = chance.choice((1, 50, 5_000))
            closed = chance.random() < 0.5
            return key * depth + (varint(number << 3 | 4) * depth if closed else b"")
        return key + chance.randbytes(4)


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
