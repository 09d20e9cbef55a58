"""What Python finds if the package of this name, which comes first, has lost its __init__.py to the old package's
uninstallation: an empty package, otherwise."""

raise ImportError(
    "gpt_2_simple is no longer whole: when the old package gpt-2-simple was uninstalled, it took files of this one;"
    " install it again: pip install --force-reinstall --no-deps . in its checkout"
)
