"""What there is to compute with on this machine, and whether its numbers are right."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator

import numpy as np

from gpt2 import devices, tensorflow_startup
from gpt2.cli import package_conflict
from gpt2.engine import reference
from gpt2.engine.backend import Segment
from gpt2.engine.kv_cache import blocks_for
from gpt2.errors import GPT2Error
from gpt2.formats import model_dir
from gpt2.formats.directory import ModelDir
from gpt2.formats.weights import nest
from gpt2.hparams import HParams

PACKAGES = (
    "tensorflow",
    "tensorflow-cpu",
    "numpy",
    "google-crc32c",
    "regex",
    "fire",
    "requests",
    "tqdm",
    "sentencepiece",
    "ziglang",
)
# What TensorFlow's kernels choose by: the first it cannot do without, the last two make bfloat16 and int8 fast.
CPU_FEATURES = ("avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", devices.AMX_FLAG, "amx_int8")
TOLERANCE = 1e-4  # absolute, of a logit in float32
TESTED_TOKENS = 32
# Used where no model is at hand.
RANDOM_MODEL = HParams(n_vocab=512, n_ctx=64, n_embd=128, n_head=4, n_layer=2)


def examine(
    models_dir: str = model_dir.DEFAULT_MODELS_DIR, threads: int | None = None, clear_cache: bool = False
) -> Iterator[str]:
    """The findings, a line each. A compiler that has failed is tried again; clear_cache: packed weights are removed.

    Raises GPT2Error at the end if the self-test's numbers are wrong, UsageError for `threads`.
    """
    devices.check_threads(threads)
    yield f"Python {platform.python_version()} on {platform.platform()}"
    yield "packages: " + ", ".join(_versions())
    if package_conflict.of_the_old_package():
        yield f"warning: {package_conflict.of_the_old_package()}"
    yield f"CPU: {processor()}"
    yield f"text is written by {_writer(threads)}"
    yield _kept(clear_cache)
    yield f"TensorFlow {_devices(threads)}"
    yield "models are looked for in: " + ", ".join(map(os.path.realpath, model_dir.search_path(models_dir)))
    usable = []
    for path in model_dir.list_models(models_dir):
        try:
            usable.append(model_dir.open_model_dir(path))
            yield f"  {path.name}: {usable[-1].hparams.n_params:,} parameters"
        except GPT2Error as error:
            yield f"  {path.name}: not usable, {error}"
    if not usable:
        yield f"  none; {model_dir.download_command(model_dir.DEFAULT_MODEL)} brings one"
    smallest = min(usable, key=lambda model: model.hparams.n_params, default=None)
    name = smallest.path.name if smallest else "random weights"
    largest = largest_error(smallest, threads)
    verdict = f"self-test on {name}: the largest error of a logit is {largest:.1e}, {TOLERANCE:.0e} are allowed"
    if not largest <= TOLERANCE:
        raise GPT2Error(f"{verdict}. The numbers are wrong: try TF_ENABLE_ONEDNN_OPTS=0, or another TensorFlow")
    yield verdict


def largest_error(directory: ModelDir | None, threads: int | None = None) -> float:
    """Largest difference between our logits and NumPy's, prefilled at once and decoded token by token, by each backend
    that there is. Raises GPT2Error if there is none."""
    from gpt2.engine.load import all_backends

    hparams = directory.hparams if directory else RANDOM_MODEL
    if directory:
        weights = nest((name, weight.array()) for name, weight in directory.read().items())
    else:
        weights = reference.random_weights(hparams, seed=0)
    tokens = np.random.default_rng(0).integers(hparams.n_vocab, size=min(TESTED_TOKENS, hparams.n_ctx))
    expected = reference.logits(weights, hparams, tokens.tolist())
    errors = []
    for backend in all_backends(weights, hparams, threads):
        blocks = backend.new_pool()
        whole, growing = ([blocks.allocate() for _ in range(blocks_for(len(tokens)))] for _ in range(2))
        for i in range(len(tokens)):
            pieces = [Segment(whole, 0, tokens[: i + 1]), Segment(growing, i, tokens[i : i + 1])]
            errors.append(np.abs(backend.extend(blocks, pieces).values - expected[i]).max())
    if not errors:
        raise GPT2Error("nothing here can compute: install TensorFlow, or a C++ compiler for the native step")
    return float(max(errors))


def _writer(threads: int | None) -> str:
    from gpt2.engine.load import native_library
    from gpt2.engine.native import build

    build.forget_failures()
    try:
        native_library(threads=threads)
    except build.NoLibraryError as reason:
        other = "TensorFlow" if tensorflow_startup.is_tensorflow_installed() else "nothing"
        return f"{other}; not the native step, which is faster: {reason}"
    return "the native step, compiled for this machine"


def _kept(clear: bool) -> str:
    from gpt2.engine.native import packed_store

    if clear:
        packed_store.remove_files()
    paths = packed_store.list_files()
    if not paths:
        return "packed weights are kept of no model"
    sizes = sum(path.stat().st_size for path in paths)
    places = ", ".join(sorted({str(path.parent) for path in paths}))
    return f"packed weights are kept in {places}: {len(paths)} files, {sizes / 1e6:,.0f} MB; --clear_cache removes them"


def _devices(threads: int | None) -> str:
    if not tensorflow_startup.is_tensorflow_installed():
        return "is not installed: nothing here trains or uses a GPU"
    computes_on = tensorflow_startup.start_tensorflow(threads)
    return f"sees: {', '.join(tensorflow_startup.visible_devices())}; it computes on: {computes_on}"


def _versions() -> Iterator[str]:
    for package in PACKAGES:
        try:
            yield f"{package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            continue


def processor() -> str:
    """Its name, the cores that this process may use, whether two of them are threads of one as far as the system says
    so, and those of its instruction sets that matter here."""
    flags, whole = devices.cpu_flags(), devices.physical_cores()
    present = [feature for feature in CPU_FEATURES if feature in flags] or [platform.machine()]
    if devices.AMX_FLAG in flags and not devices.is_amx_permitted():
        present.append(f"(the system does not let {devices.AMX_FLAG} be used)")
    cores = devices.available_cores()
    shared = "" if whole is None else " (whole ones)" if whole >= cores else f" (threads of {whole})"
    return f"{devices.cpu_name()}, {cores} cores for this process{shared}, {' '.join(present)}"
