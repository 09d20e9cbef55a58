"""examples/finetune.ipynb, executed with the repository's own model."""

import os
from pathlib import Path

import nbclient
import nbformat

ROOT = Path(__file__).resolve().parents[2]
SHORT = 'MODEL, TEXT, URL, RUN, STEPS, LENGTH = "shakespeare", "text.txt", "", "run1", 2, 20'


def test_the_notebook_runs(tmp_path, monkeypatch):
    notebook = nbformat.read(ROOT / "examples/finetune.ipynb", as_version=4)
    nbformat.validate(notebook)
    first_cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert first_cell.source.startswith('REPOSITORY = "') and '%pip install -q "git+{REPOSITORY}"' in first_cell.source
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    assert all(name in parameters.source for name in SHORT.split(" = ")[0].split(", "))
    parameters.source = SHORT
    (tmp_path / "text.txt").write_text("ROMEO:\nBut soft, what light through yonder window breaks?\n" * 40)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = "".join(
        output.text for cell in notebook.cells for output in cell.get("outputs", []) if output.output_type == "stream"
    )
    assert "Saving checkpoint/run1/model-2" in printed and printed.count("ROMEO:") >= 3
    assert (tmp_path / "texts.txt").read_text(encoding="utf-8").count("=" * 20) == 5
