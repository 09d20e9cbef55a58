"""GGUF files as llama.cpp's converter lays a GPT-2 of transformers out, by the gguf package's own names and types."""

import gguf
import numpy as np

from gpt2.encoder import END_OF_TEXT

HEADS = {"wte": "wte.weight", "wpe": "wpe.weight", "w": "weight", "g": "weight", "b": "bias"}


def transformers_name(name):
    """model/h0/attn/c_attn/w -> transformer.h.0.attn.c_attn.weight"""
    if name == "model/lm_head":
        return "lm_head.weight"
    *parts, end = name.split("/")[1:]
    parts = [part for parent in parts for part in ([*"h", parent[1:]] if parent[1:].isdecimal() else [parent])]
    return ".".join(["transformer", *parts, HEADS[end]])


def write(path, weights, encoder, hparams, kind="F32", padding=0, output=False, **keys):
    """weights: {name in a checkpoint: array, matrices [I, O]}. padding: rows of the embedding beyond the vocabulary.
    output: whether the embedding is written a second time. keys: of the metadata, dots as __, None leaves one out."""
    writer = gguf.GGUFWriter(path, keys.pop("architecture", "gpt2"))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, hparams.n_layer)
    describe(writer, encoder, hparams, padding)
    for name, value in keys.items():
        name = name.replace("__", ".")
        if value is None:
            del writer.kv_data[0][name]
        else:
            kinds = {int: gguf.GGUFValueType.UINT32, str: gguf.GGUFValueType.STRING, float: gguf.GGUFValueType.FLOAT32}
            writer.kv_data[0][name] = gguf.gguf_writer.GGUFValue(value, kinds[type(value)])
    for name, array in weights.items():
        theirs = names.get_name(transformers_name(name), try_suffixes=(".weight", ".bias"))
        array = np.pad(array, [(0, padding), (0, 0)], constant_values=9) if name.endswith(("wte", "lm_head")) else array
        add(writer, theirs, array.T if name.endswith("/w") else array, kind)
        if output and name == "model/wte":
            add(writer, "output.weight", array, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add(writer, name, array, kind):
    """Vectors and positions stay float32."""
    array = np.ascontiguousarray(array, np.float32)
    if array.ndim == 1 or name == "position_embd.weight" or kind == "F32":
        writer.add_tensor(name, array)
    else:
        kind = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)


def describe(writer, encoder, hparams, padding):
    writer.add_context_length(hparams.n_ctx)
    writer.add_embedding_length(hparams.n_embd)
    writer.add_feed_forward_length(hparams.mlp_size)
    writer.add_block_count(hparams.n_layer)
    writer.add_head_count(hparams.n_head)
    writer.add_layer_norm_eps(hparams.layer_norm_epsilon)
    pieces = sorted(encoder.ids_of, key=encoder.ids_of.__getitem__)
    kinds = [gguf.TokenType.CONTROL if piece == END_OF_TEXT else gguf.TokenType.NORMAL for piece in pieces]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(pieces + [f"[PAD{len(pieces) + i}]" for i in range(padding)])
    writer.add_token_types(kinds + [gguf.TokenType.UNUSED] * padding)
    writer.add_token_merges([" ".join(pair) for pair in encoder.merges()])
    writer.add_bos_token_id(encoder.end_of_text)
    writer.add_eos_token_id(encoder.end_of_text)
