"""The library as other programs use it: compiled programs in C beside it, for this machine and for others."""

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
EXAMPLE, HEADERS = ROOT / "examples" / "c", build.SOURCE_FOLDER
MODEL = ROOT / "models/shakespeare"
PROMPT, COUNT = [49, 50, 51, 10, 20], 40
WARNINGS = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror")


@pytest.fixture(scope="module")
def prepared(native, tmp_path_factory):
    """The folder that the example's command fills from the bundled model, and a model whose sizes are no multiples of a
    register's."""
    folder = tmp_path_factory.mktemp("prepared")
    subprocess.run([sys.executable, EXAMPLE / "prepare.py", MODEL, folder], check=True)
    odd = tiny.write_model(tmp_path_factory.mktemp("models") / "odd", n_ctx=200, n_embd=36)
    runpy.run_path(str(EXAMPLE / "prepare.py"))["write_weights"](odd, folder / "odd.bin")
    return folder


@pytest.fixture(scope="module")
def expected():
    """The ids that the library gives Python, with weights of each precision."""
    backends = {name: load_backend(open_model_dir(MODEL), name) for name in PRECISIONS}
    return {
        name: generate_ids(each, [TokenSequence(PROMPT, Sampling(temperature=0))], COUNT)[0]
        for name, each in backends.items()
    }


@pytest.fixture(scope="module")
def compiler():
    found = shutil.which("cc") or pytest.skip("there is no C compiler")
    return [found]


def compiled(compiler, source, program, *libraries):
    """A program in C, or its object file."""
    command = [*compiler, *WARNINGS, f"-I{HEADERS}", source, *libraries, "-o", program]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return program


def said(*command):
    """The numbers that a program prints."""
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=500)
    assert result.returncode == 0, result.stderr
    return list(map(int, result.stdout.split()))


def test_a_program_in_c_writes_the_same_ids(prepared, compiler, expected):
    program = compiled(compiler, EXAMPLE / "greedy.c", prepared / "greedy", prepared / "libgpt2.so")
    for precision in PRECISIONS:
        found = said(program, prepared / "weights.bin", precision, COUNT, *PROMPT)
        assert found == expected[precision] and len(set(found)) > 10


def test_what_is_wrong_is_said(prepared, compiler):
    program = compiled(compiler, EXAMPLE / "greedy.c", prepared / "greedy", prepared / "libgpt2.so")
    for ids, wrong in (([99999], "ids outside the vocabulary"), ([1] * 257, "positions out of range")):
        command = list(map(str, [program, prepared / "weights.bin", "int8", 1, *ids]))
        result = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (result.returncode, result.stdout, result.stderr) == (1, "", f"error: {wrong}\n")


def test_same_bits_in_c(prepared, compiler):
    source = Path(__file__).with_name("same_bits.c")
    program = compiled(compiler, source, prepared / "same_bits", prepared / "libgpt2.so")
    for precision in PRECISIONS:
        assert said(program, prepared / "odd.bin", precision) == [14]


ARM = {"baseline": "-march=armv8-a", "dot products and bfloat16": "-march=armv8.6-a"}
TOOLS = ("qemu-aarch64-static", "aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++")


@pytest.fixture
def crossed(tmp_path):
    """A function that compiles a program in C for ARM64, with the library in it and without a warning."""
    _, cc, cxx = (shutil.which(tool) or pytest.skip(f"there is no {tool}") for tool in TOOLS)

    def program(source, extensions):
        options = [each for each in build.OPTIONS if each not in (build.NATIVE_OPTION, "-shared", "-w")]
        strict = [extensions, "-Wall", "-Wextra", "-Werror"]
        objects = [tmp_path / "library.o", compiled([cc, "-c"], source, tmp_path / "program.o")]
        library = [build.SOURCE_FOLDER / build.MAIN_SOURCE, "-c", "-o", objects[0]]
        subprocess.run([cxx, *options, *strict, *library], check=True)
        subprocess.run([cxx, "-static", *objects, "-o", tmp_path / source.stem], check=True)
        return tmp_path / source.stem

    return program


@pytest.mark.slow
@pytest.mark.parametrize("extensions", ARM)
def test_on_arm(extensions, crossed, prepared, expected):
    """Run by an emulator: the same ids, and a text's bits whatever stands beside it."""
    greedy = crossed(EXAMPLE / "greedy.c", ARM[extensions])
    same_bits = crossed(Path(__file__).with_name("same_bits.c"), ARM[extensions])
    run = (TOOLS[0], "-cpu", "max")
    for precision in PRECISIONS:
        found = said(*run, greedy, prepared / "weights.bin", precision, COUNT, *PROMPT)
        assert found == expected[precision]
        assert said(*run, same_bits, prepared / "odd.bin", precision) == [14]
