"""Extracts the comments of the protos, which are the contract, by full name."""

from collections.abc import Iterator

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet


def comments(image: FileDescriptorSet) -> dict[str, str]:
    """The comments by the full name of what they describe; a file's is that of its package.

    Args:
        image: of the protos, with source info.
    """
    return {name: text for file in image.file for name, text in _comments_of(file) if text}


def _comments_of(file: FileDescriptorProto) -> Iterator[tuple[str, str]]:
    """The comments of a file's package and of what it declares, by full name."""
    texts = {
        tuple(location.path): _unwrapped(location.leading_comments)
        for location in file.source_code_info.location
    }
    yield file.name, texts.get((2,), "")
    for i, kind in enumerate(file.message_type):
        yield f"{file.package}.{kind.name}", texts.get((4, i), "")
        for j, field in enumerate(kind.field):
            yield f"{file.package}.{kind.name}.{field.name}", texts.get((4, i, 2, j), "")
    for i, enum in enumerate(file.enum_type):
        yield f"{file.package}.{enum.name}", texts.get((5, i), "")
        for j, value in enumerate(enum.value):
            yield f"{file.package}.{value.name}", texts.get((5, i, 2, j), "")
    for i, service in enumerate(file.service):
        yield f"{file.package}.{service.name}", texts.get((6, i), "")
        for j, method in enumerate(service.method):
            name = f"{file.package}.{service.name}.{method.name}"
            yield name, texts.get((6, i, 2, j), "")


def _unwrapped(comment: str) -> str:
    """Joins each paragraph into one line; lists and indented text keep their lines."""
    out: list[str] = []
    for line in (each.removeprefix(" ").rstrip() for each in comment.splitlines()):
        hangs = line.startswith("  ") and out and out[-1].startswith("* ")
        plain = line and not line.startswith((" ", "*")) and out and out[-1]
        if hangs or (plain and not out[-1].startswith(" ")):
            out[-1] += f" {line.strip()}"
        else:
            out.append(line)
    return "\n".join(out).strip()
