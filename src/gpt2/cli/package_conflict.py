"""The conflict with the old package gpt-2-simple, which installs a folder of the same name, `gpt_2_simple`.

The package that is installed later overwrites files of the other one.
"""

from __future__ import annotations

from importlib import metadata

OLD_PACKAGE = "gpt-2-simple"


def describe_conflict() -> str:
    """Return the problem and its remedy if the old package is installed, else an empty string."""
    try:
        version = metadata.version(OLD_PACKAGE)
    except metadata.PackageNotFoundError:
        return ""
    return (
        f"the old package {OLD_PACKAGE} {version} is also installed, and both are imported as gpt_2_simple: type"
        f" pip uninstall {OLD_PACKAGE}, then install this package again"
    )
