"""What to install where an optional dependency is missing."""

import shlex
from importlib import metadata


def missing(feature: str, error: ImportError, extra: str) -> str:
    """The message for a feature whose packages are not installed.

    It names the packages themselves, which are on an index, and not the extra: `idpass-server`
    may have been installed from its tree or from a wheel, where pip would look for it in vain.
    """
    packages = shlex.join(requirements(extra))
    return (
        f"{feature} needs {error.name}, which is not installed. "
        f"The extra {extra!r} of idpass-server is: pip install {packages}"
    )


def requirements(extra: str) -> list[str]:
    """What an extra of the installed idpass-server requires, as pip takes it."""
    found = []
    for line in metadata.requires("idpass-server") or ():
        requirement, _, marker = line.partition(";")
        if marker.strip().replace('"', "'") == f"extra == '{extra}'":
            found.append(requirement.strip())
    return found
