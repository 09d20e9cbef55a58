"""gpt-2-simple's functions: programs that begin with `import gpt_2_simple as gpt2` run unchanged."""

import warnings

from gpt2.cli import clash
from gpt_2_simple.gpt_2 import *  # noqa: F403 - as the old package did

if clash.of_the_old_package():
    warnings.warn(clash.of_the_old_package(), stacklevel=2)
