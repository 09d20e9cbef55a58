"""Reads the dependencies from requirements.txt, so that they are named once; all else is in pyproject.toml."""

from pathlib import Path

from setuptools import setup

lines = Path(__file__).with_name("requirements.txt").read_text(encoding="utf-8").splitlines()
named = [line.split("#")[0].strip() for line in lines if not line.startswith("-")]
setup(install_requires=[requirement for requirement in named if requirement])
