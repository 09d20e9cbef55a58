"""The variants of GPT-2 that are computed here, each by what of it is not GPT-2's, and all of them in one."""

from gpt2.hparams import HParams

SIZES = {"n_vocab": 101, "n_ctx": 300, "n_embd": 24, "n_head": 3, "n_layer": 3}
FIELDS = [
    {"n_inner": 70},
    {"n_token_embd": 10},
    {"n_token_embd": 40},
    {"layer_norm_epsilon": 1e-2},
    {"activation_function": "gelu"},
    {"tie_word_embeddings": False},
    {"scale_attn_by_inverse_layer_idx": True},
]
ALL = {"n_inner": 101, "n_token_embd": 17, **{name: value for fields in FIELDS[3:] for name, value in fields.items()}}
VARIANTS = [HParams(**SIZES, **fields) for fields in (*FIELDS, ALL)]


def name_of(hparams: HParams) -> str:
    """For pytest's ids."""
    return ",".join(f"{name}={value}" for name, value in hparams.variant_fields().items())
