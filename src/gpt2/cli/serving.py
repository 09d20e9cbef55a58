"""Loading the models of a server, running it, and opening its page in a browser."""

from __future__ import annotations

import gc
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
from gpt2.installation import install_command
from gpt2.request import check_precision, check_range

if TYPE_CHECKING:
    from gpt2.server.access import AccessLimits
    from gpt2.server.served_model import ServedModel

PACKAGES = ("fastapi", "uvicorn", "prometheus_client")
REQUIREMENTS = "-r requirements-server.txt"
PORTS = 1 << 16
LOOPBACK = "127.0.0.1"
ALL_ADDRESSES = ("0.0.0.0", "")


class ServedModelsConfig(NamedTuple):
    """The models that a server serves, and their settings.

    Attributes:
        names: The names or paths of the models.
        models_dir: The folder of the models.
        precision: The precision of the weights in memory.
        threads: The number of threads that compute; None is all cores.
        batch_size: Texts of a model that are generated together.
        queue_size: Requests that may wait for a model.
        cache: Whether packed weights are cached on disk.
    """

    names: Sequence[str]
    models_dir: str
    precision: str
    threads: int | None
    batch_size: int
    queue_size: int
    cache: bool = True


def access_limits(
    api_key: str | None, hosts: Sequence[str], origins: Sequence[str], max_body_bytes: int
) -> AccessLimits:
    """Return the limits on the requests that the server accepts.

    Args:
        api_key: The bearer token that clients must send; None requires no token.
        hosts: Host names by which clients may call the server, in addition to localhost and IP addresses.
        origins: Origins whose pages may send requests; "*" allows all.
        max_body_bytes: Maximum size of a request, in bytes.

    Raises:
        GPT2Error: A package that the server needs is missing.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise GPT2Error(f"the server needs {', '.join(missing)}; type: {install_command(REQUIREMENTS, *missing)}")
    from gpt2.server.access import AccessLimits

    return AccessLimits(hosts, origins, api_key, max_body_bytes)


def run(
    models: ServedModelsConfig,
    host: str,
    port: int,
    open_browser: bool,
    limits: AccessLimits,
    max_tokens: int,
    timeout: float,
    grace: float,
) -> None:
    """Load the models and serve them until Ctrl-C.

    Args:
        models: The models.
        host: The address to listen on.
        port: The port to listen on; 0 is any free port.
        open_browser: Whether to open the page when the server is ready.
        limits: Limits on the accepted requests.
        max_tokens: Maximum number of new tokens of a text.
        timeout: Maximum duration of a request, in seconds.
        grace: Seconds that running requests have to finish when the server is stopped.

    Raises:
        GPT2Error: A model is missing or damaged, or the port is in use.
        UsageError: A value is not allowed.
    """
    from gpt2.server import run as server
    from gpt2.server.app import ServerOptions

    _check_ranges(port, timeout, grace)
    listening = server.listen(host, port)
    served = load(models)
    url = _url(host, listening.getsockname()[1])

    def ready() -> None:
        names = ", ".join(model.name for model in served)
        print_error_line(f"{names} ({models.precision}) on {url}; {_describe_access(host, limits.api_key)}")
        if open_browser:
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()

    gc.freeze()  # large requests start collections, which need not visit what lives as long as the server
    server.serve(served, listening, ServerOptions(limits, max_tokens, timeout), grace, ready)
    print_error_line("stopped")


def _check_ranges(port: int, timeout: float, grace: float) -> None:
    check_range("timeout", timeout, 0.1, 1e6, "seconds")
    check_range("grace", grace, 0, 1e6, "seconds")
    if port >= PORTS:
        raise UsageError(f"port must be below {PORTS}, not {port}")


def load(models: ServedModelsConfig) -> list[ServedModel]:
    """Return the models with their weights and schedulers.

    All models are found before any of them is loaded.

    Raises:
        GPT2Error: A model is missing or damaged.
        UsageError: Two models have the same name, or a value is not allowed.
    """
    from gpt2.generate import load_weights
    from gpt2.server.scheduler import Scheduler
    from gpt2.server.served_model import ServedModel

    check_precision(models.precision)
    check_threads(models.threads)
    directories = [find_model(name, models.models_dir) for name in models.names]
    names = [directory.path.name for directory in directories]
    if duplicates := {name for name in names if names.count(name) > 1}:
        raise UsageError(f"two models have the name {min(duplicates)}, and clients could not choose; rename a folder")
    served = []
    for name, directory in zip(names, directories):
        vocabulary = load_vocabulary(directory)
        model = load_weights(directory, vocabulary, models.precision, print_error_line, models.threads, models.cache)
        scheduler = Scheduler(model, models.batch_size, models.queue_size)
        served.append(ServedModel(name, model, scheduler, models.precision, directory))
    return served


def _url(host: str, port: int) -> str:
    """Return a URL by which this machine reaches the server."""
    if host in ALL_ADDRESSES:
        name = LOOPBACK
    elif host == "::":
        name = "[::1]"
    elif ":" in host:
        name = f"[{host}]"
    else:
        name = host
    return f"http://{name}:{port}"


def _describe_access(host: str, api_key: str | None) -> str:
    """Return a sentence about the clients that can reach the server."""
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = host == "localhost"
    if is_loopback:
        return "only this machine can reach it; --host 0.0.0.0 allows other machines"
    if api_key:
        return "everyone who can reach this machine and has the key can use it"
    return "everyone who can reach this machine can use it; --api_key requires a key"
