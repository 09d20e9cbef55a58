"""Two packages of one name: this one and the old gpt-2-simple put their files into a folder `gpt_2_simple`, so that
either may have overwritten the other's."""

from __future__ import annotations

from importlib import metadata

OLD_PACKAGE = "gpt-2-simple"


def of_the_old_package() -> str:
    """What is wrong and what to do, if the old package is installed; nothing if it is not."""
    try:
        version = metadata.version(OLD_PACKAGE)
    except metadata.PackageNotFoundError:
        return ""
    return (
        f"the old package {OLD_PACKAGE} {version} is installed too, and both are imported as gpt_2_simple: type"
        f" pip uninstall {OLD_PACKAGE}, then install this one again"
    )
