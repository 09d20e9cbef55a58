"""The house: who may import whom, what imports no TensorFlow, and what a reader finds at the front."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src"
STAND_IN = SRC / "gpt_2_simple.py"  # of the package that lies beside it
# From the cellar up: a room imports only what is further down. A file at the front is a room of its own.
FLOORS = [
    ["errors"],
    ["files"],
    ["hparams", "request", "interrupt", "devices", "text"],
    ["encoder", "model", "sample", "tensorflow_startup", "flags"],
    ["formats"],
    ["engine", "data", "openai"],
    ["generate"],
    ["training", "evaluation", "server", "bulk"],
    ["export"],
    ["cli"],
    ["gpt_2_simple", "lm", "commands"],
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
WITH_TENSORFLOW = {
    "gpt2.model",
    "gpt2.engine.tensorflow",
    "gpt2.openai.model",
    "gpt2.openai.sample",
    "gpt2.export.bpe_ops",
    "gpt2.export.saved_model",
}  # and all of training that computes


def modules():
    """The name and the path of each module of ours, commands included."""
    for path in [*SRC.glob("*/**/*.py"), *SRC.glob("*.py"), *ROOT.glob("*.py"), *(ROOT / "scripts").glob("*.py")]:
        if path == STAND_IN:
            continue
        parts = path.relative_to(SRC if path.is_relative_to(SRC) else ROOT).with_suffix("").parts
        yield ".".join(parts).removesuffix(".__init__"), path


MODULES = dict(modules())


def room(module):
    first, *rest = module.split(".")
    if first == "gpt2" and rest:
        return rest[0]
    return first if first in ("gpt2", "gpt_2_simple", "lm") else "commands"


def imports(path, nodes=None):
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if nodes is None else nodes:
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            named = [f"{node.module}.{name.name}" for name in node.names]
            yield from (name if name in MODULES else node.module for name in named)


def at_import(path):
    """Those of them that the import of the file itself brings."""
    return imports(path, ast.parse(path.read_text(encoding="utf-8")).body)


def test_no_import_runs_up():
    for module, path in MODULES.items():
        for other in {name for name in imports(path) if name in MODULES and name != "gpt2"}:
            if room(other) != room(module) and module != "gpt2":
                assert FLOOR[room(other)] < FLOOR[room(module)], f"{module} imports {other}"


def test_no_modules_import_each_other_in_a_circle():
    graph = {module: [name for name in imports(path) if name in MODULES] for module, path in MODULES.items()}
    TopologicalSorter({module: set(names) - {module} for module, names in graph.items()}).prepare()


def test_the_front_of_the_house_is_twelve_files():
    front = [path.name for path in (SRC / "gpt2").glob("*.py") if path.name != "__init__.py"]
    assert len(front) <= 12, front


@pytest.mark.parametrize("folder", ["src", "scripts", "benchmarks", "tests"])
def test_every_file_opens_with_what_it_is_for(folder):
    for path in [*(ROOT / folder).rglob("*.py"), *ROOT.glob("*.py")]:
        if "egg-info" not in str(path) and path.name != "setup.py":
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path
    for path in [*(ROOT / folder).rglob("*.h"), *(ROOT / folder).rglob("*.cc")]:
        assert path.read_text(encoding="utf-8").startswith("//"), path
    for path in (ROOT / folder).rglob("*.js"):
        assert path.read_text(encoding="utf-8").startswith("// "), path


def test_what_imports_tensorflow_is_where_it_computes():
    found = {module for module, path in MODULES.items() if "tensorflow" in set(at_import(path))}
    assert {module for module in found if not module.startswith("gpt2.training.")} == WITH_TENSORFLOW


def test_no_tensorflow_from_the_import_to_the_last_token(native, tiny_dir):
    """Through the public command, on a CPU with a compiler; the face of gpt-2-simple too."""
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
