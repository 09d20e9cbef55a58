"""Two packages of one name: what to do if the old gpt-2-simple is installed beside this one."""

from __future__ import annotations

import warnings
from importlib import metadata

OLD_PACKAGE = "gpt-2-simple"


def warn_of_the_old_package() -> None:
    """Both put their files into a folder `gpt_2_simple`, so that either may have overwritten the other's."""
    try:
        version = metadata.version(OLD_PACKAGE)
    except metadata.PackageNotFoundError:
        return
    warnings.warn(
        f"the old package {OLD_PACKAGE} {version} is installed too, and both are imported as gpt_2_simple: type"
        f" pip uninstall {OLD_PACKAGE}, then install this one again",
        stacklevel=3,
    )
