"""GGUF's names for the parts of a GPT-2: metadata keys, kinds of tokens and tensor names.

See ggml's docs/gguf.md and llama.cpp's gguf-py/gguf/constants.py.
"""

from __future__ import annotations

from gpt2.formats.openai import checkpoint
from gpt2.formats.weights import PREFIX, Layout

ARCHITECTURE = "gpt2"
TOKENIZER_MODEL = "gpt2"  # byte-level BPE
PRE_TOKENIZER = "gpt-2"  # the pattern that splits text before BPE

# Kinds of tokens: the values in the list under TOKEN_TYPES_KEY.
NORMAL_TOKEN = 1
CONTROL_TOKEN = 3
USER_DEFINED_TOKEN = 4
UNUSED_TOKEN = 5

TOKENS_KEY = "tokenizer.ggml.tokens"
TOKEN_TYPES_KEY = "tokenizer.ggml.token_type"
MERGES_KEY = "tokenizer.ggml.merges"
ADD_KEYS = ("tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token")  # whether an id is added to each text
# The keys of the ids that end a text, a turn and a message; llama.cpp ends its output at each of them.
ENDING_KEYS = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")
# Names of the model's properties, which `metadata_key` completes to keys.
SIZE_KEYS = {
    "n_ctx": "context_length",
    "n_embd": "embedding_length",
    "n_head": "attention.head_count",
    "n_layer": "block_count",
    "n_inner": "feed_forward_length",
}
EPSILON_KEY = "attention.layer_norm_epsilon"

MODEL_TENSORS = {"wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "lm_head": "output"}
LAYER_TENSORS = {
    "ln_1": "attn_norm",
    "attn/c_attn": "attn_qkv",
    "attn/c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp/c_fc": "ffn_up",
    "mlp/c_proj": "ffn_down",
}


def metadata_key(name: str) -> str:
    """Return the metadata key of a property of the model.

    >>> metadata_key("block_count")
    'gpt2.block_count'
    """
    return f"{ARCHITECTURE}.{name}"


def tensor_name(name: str) -> str:
    """Return a weight's name in a GGUF file, given its name in OpenAI's checkpoints.

    >>> tensor_name("model/wte"), tensor_name("model/h3/attn/c_attn/b")
    ('token_embd.weight', 'blk.3.attn_qkv.bias')
    """
    path = name.removeprefix(PREFIX)
    if path in MODEL_TENSORS:
        return f"{MODEL_TENSORS[path]}.weight"
    module, _, leaf = path.rpartition("/")
    suffix = "bias" if leaf == "b" else "weight"
    if module in MODEL_TENSORS:
        return f"{MODEL_TENSORS[module]}.{suffix}"
    layer, _, module = module.partition("/")
    return f"blk.{layer.removeprefix('h')}.{LAYER_TENSORS[module]}.{suffix}"


def file_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a weight's shape in a GGUF file, which stores matrices [I, O] as [O, I]."""
    return shape[::-1] if checkpoint.layout(name) is Layout.IN_OUT else shape
