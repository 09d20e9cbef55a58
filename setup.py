"""What pyproject.toml cannot say: dependencies are named in requirements.txt, and a model is installed along.

All else is in pyproject.toml.
"""

from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
MODEL = Path("models/shakespeare")
EXTRAS = ("server", "sentencepiece", "parquet", "ray", "compiler")


def named(file):
    """The requirements in a file."""
    lines = HERE.joinpath(file).read_text(encoding="utf-8").splitlines()
    found = [line.split("#")[0].strip() for line in lines if not line.startswith("-")]
    return [requirement for requirement in found if requirement]


files = [str(path.relative_to(HERE)) for path in sorted(HERE.joinpath(MODEL).glob("*"))]
setup(
    install_requires=named("requirements.txt"),
    extras_require={name: named(f"requirements-{name}.txt") for name in EXTRAS},
    data_files=[(f"share/gpt-2-tensorflow/{MODEL}", files)],
)
