"""The native library as C programs use it, compiled for this machine and for ARM64."""

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from one_by_one import generate_ids

from gpt2.engine.load import load_backend
from gpt2.engine.native import build
from gpt2.engine.token_sequence import TokenSequence
from gpt2.formats.model_dir import open_model_dir
from gpt2.request import PRECISIONS, Sampling

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "c"
HEADERS = build.SOURCE_FOLDER
MODEL = ROOT / "models/shakespeare"
PROMPT = [49, 50, 51, 10, 20]
N_IDS = 40
WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror")


@pytest.fixture(scope="module")
def prepared(native, tmp_path_factory):
    """Return a folder with what the example's command writes for the bundled model.

    The file odd.bin in it is a model whose sizes are not multiples of a register's.
    """
    folder = tmp_path_factory.mktemp("prepared")
    subprocess.run([sys.executable, EXAMPLE / "prepare.py", MODEL, folder], check=True)
    odd = tiny.write_model(tmp_path_factory.mktemp("models") / "odd", n_ctx=200, n_embd=36)
    runpy.run_path(str(EXAMPLE / "prepare.py"))["write_weights"](odd, folder / "odd.bin")
    return folder


@pytest.fixture(scope="module")
def expected():
    """Return the ids that Python gets from the library, by precision."""
    backends = {name: load_backend(open_model_dir(MODEL), name) for name in PRECISIONS}
    return {
        name: generate_ids(each, [TokenSequence(PROMPT, Sampling(temperature=0))], N_IDS)[0]
        for name, each in backends.items()
    }


@pytest.fixture(scope="module")
def compiler():
    path = shutil.which("cc") or pytest.skip("there is no C compiler")
    return [path]


def compile_program(compiler, source, program, *libraries):
    """Compile a C program or object file and return its path."""
    command = [*compiler, *WARNINGS, f"-I{HEADERS}", source, *libraries, "-o", program]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return program


def run_program(*command):
    """Return the numbers that a program prints."""
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stderr
    return list(map(int, result.stdout.split()))


def test_a_c_program_generates_the_same_ids(prepared, compiler, expected):
    program = compile_program(compiler, EXAMPLE / "greedy.c", prepared / "greedy", prepared / "libgpt2.so")
    for precision in PRECISIONS:
        ids = run_program(program, prepared / "weights.bin", precision, N_IDS, *PROMPT)
        assert ids == expected[precision] and len(set(ids)) > 10


def test_a_c_program_reports_errors(prepared, compiler):
    program = compile_program(compiler, EXAMPLE / "greedy.c", prepared / "greedy", prepared / "libgpt2.so")
    for ids, message in (
        ([99999], "a segment has an id outside the vocabulary"),
        ([1] * 257, "a segment's positions exceed its blocks or the window"),
    ):
        command = list(map(str, [program, prepared / "weights.bin", "int8", 1, *ids]))
        result = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (result.returncode, result.stdout, result.stderr) == (1, "", f"error: {message}\n")


def test_a_c_program_gets_the_same_bits(prepared, compiler):
    source = Path(__file__).with_name("same_bits.c")
    program = compile_program(compiler, source, prepared / "same_bits", prepared / "libgpt2.so")
    for precision in PRECISIONS:
        assert run_program(program, prepared / "odd.bin", precision) == [14]


ARM = {"baseline": "-march=armv8-a", "dot products and bfloat16": "-march=armv8.6-a"}
TOOLS = ("qemu-aarch64-static", "aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++")


@pytest.fixture
def cross_compile(tmp_path):
    """Return a function that compiles a C program and the library for ARM64, with warnings as errors."""
    _, cc, cxx = (shutil.which(tool) or pytest.skip(f"there is no {tool}") for tool in TOOLS)

    def compile_for_arm(source, extensions):
        options = [option for option in build.OPTIONS if option not in (build.NATIVE_OPTION, "-shared", "-w")]
        strict = [extensions, "-Wall", "-Wextra", "-Werror"]
        objects = [tmp_path / "library.o", compile_program([cc, "-c"], source, tmp_path / "program.o")]
        library = [build.SOURCE_FOLDER / build.MAIN_SOURCE, "-c", "-o", objects[0]]
        subprocess.run([cxx, *options, *strict, *library], check=True)
        subprocess.run([cxx, "-static", *objects, "-o", tmp_path / source.stem], check=True)
        return tmp_path / source.stem

    return compile_for_arm


@pytest.mark.slow
@pytest.mark.parametrize("extensions", ARM)
def test_on_arm(extensions, cross_compile, prepared, expected):
    """In an emulator, the ids are the same, and a text's bits do not depend on the others in the batch."""
    greedy = cross_compile(EXAMPLE / "greedy.c", ARM[extensions])
    same_bits = cross_compile(Path(__file__).with_name("same_bits.c"), ARM[extensions])
    run = (TOOLS[0], "-cpu", "max")
    for precision in PRECISIONS:
        ids = run_program(*run, greedy, prepared / "weights.bin", precision, N_IDS, *PROMPT)
        assert ids == expected[precision]
        assert run_program(*run, same_bits, prepared / "odd.bin", precision) == [14]
