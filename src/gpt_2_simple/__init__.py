"""gpt-2-simple's functions: programs that begin with `import gpt_2_simple as gpt2` run unchanged."""

from gpt_2_simple.clash import warn_of_the_old_package
from gpt_2_simple.gpt_2 import *  # noqa: F403 - as the old package did

warn_of_the_old_package()
