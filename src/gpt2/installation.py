"""The checkout, its virtual environment, and what to type if packages are missing.

This module runs on every Python 3, because commands also use it to say that a Python is too old.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path

_LIBRARY_PARENT = Path(__file__).resolve().parents[1]
# Some tutorials move the contents of src/ to the folder that contains models/.
CHECKOUT = _LIBRARY_PARENT.parent if _LIBRARY_PARENT.name == "src" else _LIBRARY_PARENT
DEFAULT_ENVIRONMENT = ".venv"
ENVIRONMENT_VARIABLE = "VENV"  # the Makefile's variable for the folder of the virtual environment
ENVIRONMENT_RECORD = ".venv-path"  # the Makefile writes the folder into this file
REQUIREMENTS = "-r requirements.txt"
SUPPORTED = ("3.13", "3.12", "3.11", "3.10")  # the Pythons that TensorFlow supports, the newest first
RECOMMENDED = "3.12"
_LAYOUTS = ("bin", "Scripts")  # folders of `activate` in a virtual environment: POSIX, Windows
_SITE_PACKAGES = ("lib/python3*/site-packages", "Lib/site-packages")


def install_command(requirements: str, *modules: str) -> str:
    """Return what to type if packages are missing.

    If the checkout has a virtual environment that this process does not use, the command activates it, and installs the
    packages only if they are missing there too. A Python that the system manages is never changed: the command creates
    a virtual environment first.

    Args:
        requirements: The arguments of `pip install`.
        modules: The names of the missing modules, as they are imported.
    """
    install = f"pip install {requirements}"
    environments = find_environments()
    if any(os.path.realpath(sys.prefix) == os.path.realpath(path) for path in environments):
        return install
    for path in environments:
        if modules and all(_has_module(path, module) for module in modules):
            return _use_command(path)
    if environments:
        return f"{activate_command(environments[0])} && {install}"
    if Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists() and sys.prefix == sys.base_prefix:
        activate = _activation_line(Path(DEFAULT_ENVIRONMENT), _LAYOUTS[os.name == "nt"])
        all_requirements = requirements if requirements == REQUIREMENTS else f"{REQUIREMENTS} {requirements}"
        return f"python3 -m venv {DEFAULT_ENVIRONMENT} && {activate} && pip install {all_requirements}"
    return install


def script_command(script: str, *arguments: str) -> str:
    """Return the line that runs a script of the checkout, as it works in the working directory with this Python.

    Args:
        script: The path of the script in the checkout.
        arguments: The arguments of the script.

    Returns:
        The line, or an empty string if the package is installed without the script.
    """
    path = CHECKOUT / script
    if not path.is_file():
        return ""
    found = shutil.which("python3")
    is_found = found is not None and os.path.dirname(os.path.abspath(found)) == os.path.dirname(sys.executable)
    python = "python3" if is_found else str(_shorten(Path(sys.executable)))
    return shlex.join([python, str(_shorten(path)), *arguments])


def explain_old_python() -> str:
    """Return the error for a Python that is too old, with what to type instead."""
    running = "{}.{}".format(*sys.version_info[:2])
    problem = f"error: Python {SUPPORTED[-1]} to {SUPPORTED[0]} is needed, and {sys.executable} is {running}"
    environments = find_environments()
    if environments:
        return f"{problem}; type: {_use_command(environments[0])}"
    for name in (f"python{version}" for version in SUPPORTED):
        if _works(name):
            arguments = " ".join(map(shlex.quote, sys.argv))
            return f"{problem}; type: {name} {arguments}"
    return f"{problem}; install Python {RECOMMENDED}"


def find_environments() -> list[Path]:
    """Return the existing virtual environments that may hold the packages, the most likely one first."""
    try:
        recorded = CHECKOUT.joinpath(ENVIRONMENT_RECORD).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        recorded = ""
    named = [os.environ.get(ENVIRONMENT_VARIABLE, ""), recorded, DEFAULT_ENVIRONMENT]
    folders = [*(CHECKOUT / name for name in named if name), Path(DEFAULT_ENVIRONMENT)]
    by_real_path = {os.path.realpath(folder): folder for folder in reversed(folders) if _layout_of(folder)}
    return [*by_real_path.values()][::-1]


def activate_command(environment: Path) -> str:
    """Return the line that activates a virtual environment, with a relative path below the working directory."""
    return _activation_line(_shorten(environment), _layout_of(environment))


def _activation_line(environment: Path, layout: str) -> str:
    if layout == "Scripts":
        line = "\\".join([*environment.parts, layout, "activate"]).replace("\\\\", "\\")
        return f'"{line}"' if " " in line else line
    return f". {shlex.quote(str(environment / layout / 'activate'))}"


def _use_command(environment: Path) -> str:
    """Return the activation, or the command with the environment's Python if the environment is already active."""
    active = os.environ.get("VIRTUAL_ENV")
    if active and os.path.realpath(active) == os.path.realpath(environment):
        arguments = " ".join(map(shlex.quote, sys.argv))
        return f"{shlex.quote(str(_shorten(environment) / _layout_of(environment) / 'python'))} {arguments}"
    return activate_command(environment)


def _shorten(path: Path) -> Path:
    """Return the path relative to the working directory if it is below it."""
    try:
        return path.relative_to(Path.cwd())
    except (OSError, ValueError):  # the working directory is gone, or the path is elsewhere
        return path


def _layout_of(environment: Path) -> str:
    """Return the name of the folder with `activate`, or an empty string if this is not a virtual environment."""
    return next((name for name in _LAYOUTS if os.path.isfile(environment / name / "activate")), "")


def _has_module(environment: Path, module: str) -> bool:
    package = module.split(".")[0]
    names = (package, f"{package}.py")
    return any(any(environment.glob(f"{folder}/{name}")) for folder in _SITE_PACKAGES for name in names)


def _works(python: str) -> bool:
    """Return whether a command starts a Python; pyenv's commands may fail to start one."""
    import subprocess  # rarely needed

    try:
        return subprocess.run([python, "-c", ""], capture_output=True).returncode == 0
    except OSError:
        return False
