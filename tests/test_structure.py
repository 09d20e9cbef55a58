"""The structure of the source code: unique class names, opening descriptions, and which modules import TensorFlow.

Layers and circles of imports are checked by import-linter, see pyproject.toml.
"""

import ast
import collections
import re
import subprocess
import sys
from pathlib import Path

import pytest
from code_lines import code_lines

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src"
STAND_IN = SRC / "gpt_2_simple.py"  # a module hidden behind the package of the same name
WITH_TENSORFLOW = {
    "gpt2.model",
    "gpt2.engine.tensorflow",
    "gpt2.openai.model",
    "gpt2.openai.sample",
    "gpt2.export.bpe_ops",
    "gpt2.export.saved_model",
}  # and the modules of gpt2.training that compute


def modules():
    """Yield the name and the path of each module, commands included."""
    for path in [*SRC.glob("*/**/*.py"), *SRC.glob("*.py"), *ROOT.glob("*.py"), *(ROOT / "scripts").glob("*.py")]:
        if path == STAND_IN:
            continue
        parts = path.relative_to(SRC if path.is_relative_to(SRC) else ROOT).with_suffix("").parts
        yield ".".join(parts).removesuffix(".__init__"), path


MODULES = dict(modules())


def imports(path, nodes=None):
    """Yield the modules that a file imports, anywhere in it or in some of its statements."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if nodes is None else nodes:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            named = [f"{node.module}.{name.name}" for name in node.names]
            yield from (name if name in MODULES else node.module for name in named)


def at_import(path):
    """Yield the modules that importing the file imports."""
    return imports(path, ast.parse(path.read_text(encoding="utf-8")).body)


def test_class_names_are_unique():
    """Except the drop-in's public names in gpt2/openai, which are those of OpenAI's modules."""
    names = collections.Counter()
    for path in (SRC / "gpt2").rglob("*.py"):
        if path.parent.name != "openai" or path.parent.parent.name != "gpt2":
            names.update(re.findall(r"^class (\w+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.parametrize("folder", ["src", "scripts", "benchmarks", "tests"])
def test_every_file_starts_with_a_description(folder):
    for path in [*(ROOT / folder).rglob("*.py"), *ROOT.glob("*.py")]:
        if "egg-info" not in str(path) and path.name != "setup.py":
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path
    for path in [*(ROOT / folder).rglob("*.h"), *(ROOT / folder).rglob("*.cc")]:
        assert path.read_text(encoding="utf-8").startswith("//"), path
    for path in (ROOT / folder).rglob("*.js"):
        assert path.read_text(encoding="utf-8").startswith("// "), path


def test_only_modules_that_compute_import_tensorflow():
    importers = {module for module, path in MODULES.items() if "tensorflow" in set(at_import(path))}
    assert {module for module in importers if not module.startswith("gpt2.training.")} == WITH_TENSORFLOW


def test_generating_needs_no_tensorflow(native, tiny_dir):
    """With the public command on a CPU with a compiler, and with gpt-2-simple's functions."""
    code = f"""
import sys
sys.path.insert(0, {str(SRC)!r})
import generate_unconditional_samples, gpt_2_simple
from gpt2.cli import command
flags = ["--model_name", {str(tiny_dir)!r}, "--nsamples", "2", "--batch_size", "2", "--length", "40", "--top_k", "40"]
for precision in ("float32", "bfloat16", "int8"):
    assert command.main(generate_unconditional_samples.sample_model, [*flags, "--precision", precision]) == 0
sess = gpt_2_simple.start_tf_sess()
gpt_2_simple.load_gpt2(sess, model_name="tiny", model_dir={str(tiny_dir.parent)!r})
assert gpt_2_simple.generate(sess, length=5, return_as_list=True)
sys.exit("tensorflow" in sys.modules or "keras" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith("tiny on CPU (float32, the native step), seed ")


def test_code_lines_are_counted_without_blank_lines_comments_and_docstrings():
    source = '''"""A module
of two lines."""

import os  # a comment

# another
def f(
    x,
):
    """Return x."""
    return """a
b""" + x
'''
    assert code_lines(source) == len(["import", "def f(", "x,", "):", "return", "b"])
