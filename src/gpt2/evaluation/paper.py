"""Results from the GPT-2 paper, for comparison with measured values.

Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", table 3, zero-shot.
"""

from __future__ import annotations

from gpt2.formats.model_dir import RELEASED_MODELS
from gpt2.hparams import HParams

LAMBADA_PPL = "LAMBADA (PPL)"
LAMBADA_ACC = "LAMBADA (ACC)"
CBT_CN = "CBT-CN (ACC)"
CBT_NE = "CBT-NE (ACC)"
WIKITEXT2 = "WikiText2 (PPL)"
PTB = "PTB (PPL)"
ENWIK8 = "enwik8 (BPB)"
TEXT8 = "text8 (BPC)"
WIKITEXT103 = "WikiText103 (PPL)"
COLUMNS = (LAMBADA_PPL, LAMBADA_ACC, CBT_CN, CBT_NE, WIKITEXT2, PTB, ENWIK8, TEXT8, WIKITEXT103)
TABLE = {  # the paper calls these sizes 117M, 345M, 762M and 1542M
    "124M": (35.13, 45.99, 87.65, 83.4, 29.41, 65.85, 1.16, 1.17, 37.50),
    "355M": (15.60, 55.48, 92.35, 87.1, 22.76, 47.33, 1.01, 1.06, 26.37),
    "774M": (10.87, 60.12, 93.45, 88.0, 19.93, 40.31, 0.97, 1.02, 22.05),
    "1558M": (8.63, 63.24, 93.30, 89.05, 18.34, 35.76, 0.93, 0.98, 17.48),
}


def released_size(hparams: HParams) -> str | None:
    """Return the name of the released model with these hyperparameters, or None if there is none."""
    return next((name for name, sizes in RELEASED_MODELS.items() if sizes == hparams), None)


def published_value(size: str | None, column: str) -> float | None:
    """Return the paper's value for a released size, or None if there is no such size or column."""
    return TABLE[size][COLUMNS.index(column)] if size in TABLE and column in COLUMNS else None
