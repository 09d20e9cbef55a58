"""A module that explains a damaged installation, in which the package of this name has lost its `__init__.py`.

This package and the old gpt-2-simple both install into a folder `gpt_2_simple`, so uninstalling the old one can delete
files of this one. Python imports the package before this module. If its `__init__.py` is missing, Python finds this
module. Without this module, the import would return an empty namespace package.
"""

raise ImportError(
    "gpt_2_simple is incomplete, because uninstalling the old package gpt-2-simple deleted some of its files; to"
    " install it again, type in its checkout: pip install --force-reinstall --no-deps ."
)
