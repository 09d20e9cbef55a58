"""What pyproject.toml cannot say: dependencies are named in requirements.txt, and a model is installed along.

All else is in pyproject.toml.
"""

from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
MODEL = Path("models/shakespeare")

lines = HERE.joinpath("requirements.txt").read_text(encoding="utf-8").splitlines()
named = [line.split("#")[0].strip() for line in lines if not line.startswith("-")]
files = [str(path.relative_to(HERE)) for path in sorted(HERE.joinpath(MODEL).glob("*"))]
setup(
    install_requires=[requirement for requirement in named if requirement],
    data_files=[(f"share/gpt-2-tensorflow/{MODEL}", files)],
)
