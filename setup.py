"""The settings that pyproject.toml cannot express: dependencies from requirements.txt, and an installed model."""

from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
MODEL = Path("models/shakespeare")
EXTRAS = ("server", "sentencepiece", "parquet", "ray", "compiler")


def requirements_in(file):
    """Return the requirements in a file."""
    lines = HERE.joinpath(file).read_text(encoding="utf-8").splitlines()
    requirements = [line.split("#")[0].strip() for line in lines if not line.startswith("-")]
    return [requirement for requirement in requirements if requirement]


files = [str(path.relative_to(HERE)) for path in sorted(HERE.joinpath(MODEL).glob("*"))]
setup(
    install_requires=requirements_in("requirements.txt"),
    extras_require={name: requirements_in(f"requirements-{name}.txt") for name in EXTRAS},
    data_files=[(f"share/gpt-2-tensorflow/{MODEL}", files)],
)
