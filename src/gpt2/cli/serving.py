"""What the server says on its way, and the browser that it opens."""

from __future__ import annotations

import importlib.util
import ipaddress
import threading
import webbrowser
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from gpt2.cli.command import print_error_line
from gpt2.devices import check_threads
from gpt2.errors import GPT2Error, UsageError
from gpt2.formats.model_dir import find_model, load_vocabulary
from gpt2.request import check_precision, check_range

if TYPE_CHECKING:
    from gpt2.server.access import AccessLimits
    from gpt2.server.served_model import ServedModel

PACKAGES = ("fastapi", "uvicorn", "prometheus_client")
INSTALL = "pip install -r requirements-server.txt"


class Models(NamedTuple):
    """Which are served, and how."""

    names: Sequence[str]
    models_dir: str
    precision: str
    threads: int | None
    rows: int
    waiting: int
    cache: bool = True


def limits(api_key: str | None, hosts: Sequence[str], origins: Sequence[str], body: int) -> AccessLimits:
    """Raises GPT2Error where the server's packages are missing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise GPT2Error(f"the server needs {', '.join(missing)}; type: {INSTALL}")
    from gpt2.server.access import AccessLimits

    return AccessLimits(hosts, origins, api_key, body)


def run(
    models: Models,
    host: str,
    port: int,
    browse: bool,
    limits: AccessLimits,
    most_tokens: int,
    timeout: float,
    grace: float,
) -> None:
    """Serves until Ctrl-C. Raises UsageError for values out of range, GPT2Error for a model or a port."""
    from gpt2.server import run as server
    from gpt2.server.app import ServerOptions

    check_range("timeout", timeout, 0.1, 1e6, "seconds")
    check_range("grace", grace, 0, 1e6, "seconds")
    if port >= 1 << 16:
        raise UsageError(f"port must be below 65536, not {port}")
    listening = server.bound(host, port)
    served = load(models)
    url = _url(host, listening.getsockname()[1])

    def ready() -> None:
        names = ", ".join(one.name for one in served)
        print_error_line(f"{names} ({models.precision}) on {url}; {_reach(host, limits.api_key)}")
        if browse:
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

    server.serve(served, listening, ServerOptions(limits, most_tokens, timeout), grace, ready)
    print_error_line("stopped")


def load(models: Models) -> list[ServedModel]:
    """Finds all before it loads any. Raises GPT2Error."""
    from gpt2.generate import load_weights
    from gpt2.server.scheduler import Scheduler
    from gpt2.server.served_model import ServedModel

    check_precision(models.precision)
    check_threads(models.threads)
    found = [find_model(name, models.models_dir) for name in models.names]
    names = [directory.path.name for directory in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"two models are called {min(twice)}; clients could not choose: rename one's folder")
    served = []
    for name, directory in zip(names, found):
        vocabulary = load_vocabulary(directory)
        model = load_weights(directory, vocabulary, models.precision, print_error_line, models.threads, models.cache)
        served.append(
            ServedModel(name, model, Scheduler(model, models.rows, models.waiting), models.precision, directory)
        )
    return served


def _url(host: str, port: int) -> str:
    name = "127.0.0.1" if host in ("0.0.0.0", "") else "[::1]" if host == "::" else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}"


def _reach(host: str, api_key: str | None) -> str:
    """Who can come."""
    try:
        alone = ipaddress.ip_address(host).is_loopback
    except ValueError:
        alone = host == "localhost"
    if alone:
        return "this machine alone can reach it (--host 0.0.0.0 lets others)"
    return "whoever reaches this machine can use it" + (", with the key" if api_key else "; --api_key asks for a key")
