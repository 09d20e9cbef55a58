"""The conflict with the old package gpt-2-simple, which installs a folder of the same name, `gpt_2_simple`.

The package that is installed later overwrites files of the other one, so that `import gpt_2_simple` and the command of
this name run the old package, or a mixture of both.
"""

from __future__ import annotations

import os
import sys
import warnings

OLD_PACKAGE = "gpt-2-simple"
OLD_PACKAGE_FILE = os.path.join("gpt_2_simple", "src", "memory_saving_gradients.py")  # no version of ours has it
REINSTALL = "install this package again; in its checkout: pip install --force-reinstall --no-deps ."
# Arguments of Python for child processes, which need not repeat the warning of their parent.
WITHOUT_WARNING = ("-W", f"ignore:the old package {OLD_PACKAGE}")


def describe_conflict() -> str:
    """Return the problem and its remedy if the old package can be imported or has damaged this one, else "".

    Every import of this library asks, so that only the file system is searched: reading the metadata of the installed
    packages takes a tenth of a second.
    """
    own_parent = os.path.dirname(os.path.dirname(__file__))
    for folder in sys.path:
        if os.path.isfile(os.path.join(folder, OLD_PACKAGE_FILE)):
            return (
                f"the old package {OLD_PACKAGE} is also installed, in {folder or os.getcwd()}, and both are imported as"
                f" gpt_2_simple: type pip uninstall {OLD_PACKAGE}, then {REINSTALL}"
            )
        own_files = [os.path.join(folder, "gpt_2_simple", name) for name in ("command.py", "__init__.py")]
        if folder == own_parent and list(map(os.path.isfile, own_files)) == [True, False]:
            return (
                f"the old package {OLD_PACKAGE} was uninstalled, and files of this package's gpt_2_simple with it:"
                f" {REINSTALL}"
            )
    return ""


def warn_of_conflict() -> None:
    """Warn in one line if the old package can be imported."""
    if conflict := describe_conflict():
        warnings.warn_explicit(conflict, UserWarning, "gpt2", 1)  # no file of this name, so that no code is shown
