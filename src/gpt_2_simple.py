"""A module that explains a damaged installation, in which the package of this name has lost its `__init__.py`.

This package and the old gpt-2-simple both install into a folder `gpt_2_simple`, so uninstalling the old one can delete
files of this one. Python imports the package before this module. If its `__init__.py` is missing, Python finds this
module; without it, the import would succeed and give an empty namespace package.
"""

raise ImportError(
    "gpt_2_simple is incomplete: uninstalling the old package gpt-2-simple deleted some of its files; install it again:"
    " pip install --force-reinstall --no-deps . in its checkout"
)
