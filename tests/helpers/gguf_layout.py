"""Writes GGUF files as llama.cpp's converter writes a GPT-2 of transformers, with the gguf package's own names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from gpt2.encoder import END_OF_TEXT, Encoder
from gpt2.hparams import HParams

LEAVES = {"wte": "wte.weight", "wpe": "wpe.weight", "w": "weight", "g": "weight", "b": "bias"}
PADDING_VALUE = 9


def transformers_name(name: str) -> str:
    """Convert model/h0/attn/c_attn/w to transformer.h.0.attn.c_attn.weight."""
    if name == "model/lm_head":
        return "lm_head.weight"
    *modules, leaf = name.split("/")[1:]
    parts = [part for module in modules for part in ([*"h", module[1:]] if module[1:].isdecimal() else [module])]
    return ".".join(["transformer", *parts, LEAVES[leaf]])


def write(
    path: Path,
    weights: Mapping[str, np.ndarray],
    encoder: Encoder,
    hparams: HParams,
    kind: str = "F32",
    padding: int = 0,
    output: bool = False,
    **metadata: Any,
) -> Path:
    """Write a model and return its path.

    Args:
        path: The file.
        weights: Arrays by their names in OpenAI's checkpoints, matrices [I, O].
        encoder: The vocabulary.
        hparams: The hyperparameters.
        kind: The type of the matrices, as the package names it.
        padding: Rows that the embedding has beyond the vocabulary.
        output: Whether to write the embedding a second time as the output projection.
        metadata: Values to change, by their keys with `__` for dots; None removes one.
    """
    writer = gguf.GGUFWriter(path, metadata.pop("architecture", "gpt2"))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, hparams.n_layer)
    describe(writer, encoder, hparams, padding)
    change_metadata(writer, metadata)
    for name, array in weights.items():
        gguf_name = names.get_name(transformers_name(name), try_suffixes=(".weight", ".bias"))
        assert gguf_name, name
        if name.endswith(("wte", "lm_head")):
            array = np.pad(array, [(0, padding), (0, 0)], constant_values=PADDING_VALUE)
        add(writer, gguf_name, array.T if name.endswith("/w") else array, kind)
        if output and name == "model/wte":
            add(writer, "output.weight", array, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def change_metadata(writer: gguf.GGUFWriter, metadata: Mapping[str, Any]) -> None:
    types = {int: gguf.GGUFValueType.UINT32, str: gguf.GGUFValueType.STRING, float: gguf.GGUFValueType.FLOAT32}
    for name, value in metadata.items():
        key = name.replace("__", ".")
        if value is None:
            del writer.kv_data[0][key]
        else:
            writer.kv_data[0][key] = gguf.gguf_writer.GGUFValue(value, types[type(value)])


def add(writer: gguf.GGUFWriter, name: str, array: np.ndarray, kind: str) -> None:
    """Add a tensor; vectors and positions stay float32."""
    array = np.ascontiguousarray(array, np.float32)
    if array.ndim == 1 or name == "position_embd.weight" or kind == "F32":
        writer.add_tensor(name, array)
    else:
        ggml_type = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(name, gguf.quants.quantize(array, ggml_type), raw_dtype=ggml_type)


def describe(writer: gguf.GGUFWriter, encoder: Encoder, hparams: HParams, padding: int) -> None:
    """Add the metadata of the hyperparameters and the vocabulary."""
    writer.add_context_length(hparams.n_ctx)
    writer.add_embedding_length(hparams.n_embd)
    writer.add_feed_forward_length(hparams.mlp_size)
    writer.add_block_count(hparams.n_layer)
    writer.add_head_count(hparams.n_head)
    writer.add_layer_norm_eps(hparams.layer_norm_epsilon)
    tokens = sorted(encoder.ids_of, key=encoder.ids_of.__getitem__)
    types = [gguf.TokenType.CONTROL if token == END_OF_TEXT else gguf.TokenType.NORMAL for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens + [f"[PAD{len(tokens) + i}]" for i in range(padding)])
    writer.add_token_types(types + [gguf.TokenType.UNUSED] * padding)
    writer.add_token_merges([" ".join(pair) for pair in encoder.merges()])
    writer.add_bos_token_id(encoder.end_of_text)
    writer.add_eos_token_id(encoder.end_of_text)
