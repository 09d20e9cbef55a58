"""A backend whose prefill and decode step are one call of the native library each, in float32, bfloat16 or int8.

Without TensorFlow, from the files to the logits.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpt2 import devices
from gpt2.engine.backend import Logits, RandomWordsRequest, Segment
from gpt2.engine.kv_cache import BLOCK_SLOTS, BlockPool
from gpt2.engine.native import packing
from gpt2.engine.native.blocks import NativeBlockPool
from gpt2.engine.native.calls import check, library_int
from gpt2.engine.native.packed_store import Store
from gpt2.engine.native.packing import TYPES, Packed
from gpt2.formats.weights import Weights, nest
from gpt2.hparams import GELU, SIZES, HParams
from gpt2.request import DEFAULT_PRECISION
from gpt2.sample import numbers_per_token

POINTERS = ctypes.POINTER(ctypes.c_void_p)
HEAD, NO_BLOCK = 3, -1  # numbers that describe a piece, as in forward.h, and what stands where it has no block
MATRICES = (("attn", "c_attn"), ("attn", "c_proj"), ("mlp", "c_fc"), ("mlp", "c_proj"))
OUTSIDE = ("wte", "in_proj", "out_proj", "lm_head")  # matrices that are in no layer, of which a model has some


class COutside(ctypes.Structure):
    """`gpt2_matrix` in gpt2.h."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("w", "scale", "bias")]


class CModel(ctypes.Structure):
    """`gpt2_model` in gpt2.h."""

    _fields_ = [
        *((name, ctypes.c_long) for name in ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")),
        *((name, ctypes.c_long) for name in ("n_inner", "n_token_embd", "exact_gelu", "scale_by_layer", "threads")),
        ("epsilon", ctypes.c_double),
        *((name, COutside) for name in OUTSIDE),
        ("matrices", POINTERS),
        *((name, ctypes.c_void_p) for name in ("wpe", "ln_f")),
        ("vectors", POINTERS),
    ]


class NativeBackend:
    """See `engine.backend.Backend`. Raises GPT2Error if the weights turn out to be damaged, MemoryError.

    precision: of the weights in memory. threads: all cores if None; fewer compute where the system grants no more.
    store: where packed weights may be found, and are left for the next process.
    """

    name = "the native step"
    device = devices.CPU

    def __init__(
        self,
        library: ctypes.CDLL,
        weights: Weights,
        hparams: HParams,
        precision: str = DEFAULT_PRECISION,
        threads: int | None = None,
        store: Store | None = None,
    ) -> None:
        self.hparams = hparams
        assert library_int(library, "gpt2_slots") == BLOCK_SLOTS
        size, address = ctypes.c_long, ctypes.c_void_p
        self.forward, self.words = library.gpt2_forward, library.gpt2_random_words
        self.forward.argtypes = [ctypes.c_int, *[address] * 3, size, size, address, size, address, address]
        self.words.argtypes = [address, address, address, size, address, size, address]
        self.forward.restype = self.words.restype = ctypes.c_char_p
        self.type = list(TYPES).index(precision)
        threads = threads or devices.available_cores()
        make = functools.partial(packing.prepared, library, weights, precision, threads)
        self.kept = nest((store.prepared(weights, precision, make) if store else make()).items())  # see `pointers`
        blocks = [self.kept[f"h{layer}"] for layer in range(hparams.n_layer)]
        self.vectors = [_vectors(block) for block in blocks]
        self.ln_f = np.concatenate([self.kept["ln_f"]["g"], self.kept["ln_f"]["b"]])
        self.model = CModel(
            n_inner=hparams.mlp_size,
            n_token_embd=hparams.token_size,
            exact_gelu=hparams.activation_function == GELU,
            scale_by_layer=hparams.scale_attn_by_inverse_layer_idx,
            threads=threads,
            epsilon=hparams.layer_norm_epsilon,
            **{name: getattr(hparams, name) for name in SIZES},
            **{name: _outside(self.kept[name]) for name in OUTSIDE if name in self.kept},
            matrices=pointers([block[part][name]["w"].values for block in blocks for part, name in MATRICES]),
            wpe=self.kept["wpe"].ctypes.data,
            ln_f=self.ln_f.ctypes.data,
            vectors=pointers(self.vectors),
        )
        if hparams.tie_word_embeddings:
            self.model.lm_head = self.model.wte
        library.gpt2_block_bytes.restype = size
        self.block_bytes = library.gpt2_block_bytes(ctypes.c_int(self.type), ctypes.byref(self.model))

    def new_pool(self) -> NativeBlockPool:
        return NativeBlockPool(self.block_bytes)

    def extend(self, blocks: BlockPool, pieces: Sequence[Segment]) -> Logits:
        """See `Backend`. Raises MemoryError too."""
        assert isinstance(blocks, NativeBlockPool)
        width = HEAD + max(len(piece.blocks) for piece in pieces)
        lines: np.ndarray = np.zeros((len(pieces), width), np.int32)
        for line, piece in zip(lines, pieces):
            line[:HEAD] = piece.start, len(piece.ids), piece.n_logits
            line[HEAD : HEAD + len(piece.blocks)] = piece.blocks
            line[HEAD + len(piece.blocks) :] = NO_BLOCK
        tokens = np.concatenate([piece.ids for piece in pieces]).astype(np.int32)
        wanted = sum(piece.n_logits for piece in pieces)
        logits = np.empty([wanted, self.hparams.n_vocab], np.float32), np.empty(wanted, np.float32)
        cache, _addresses = blocks.seen()
        at_lines, at_tokens, *at_logits = (array.ctypes.data for array in (lines, tokens, *logits))
        model, seen = ctypes.byref(self.model), ctypes.byref(cache)
        check(self.forward(self.type, model, seen, at_lines, *lines.shape, at_tokens, len(tokens), *at_logits))
        return Logits(*logits)

    def random_words(self, wanted: Sequence[RandomWordsRequest]) -> list[np.ndarray]:
        """See `Backend`."""
        of_all = iter(self._words([words for words in wanted if words.ids is None], None))
        some = [words for words in wanted if words.ids is not None]
        of_some = iter(self._words(some, [words.ids for words in some if words.ids is not None]))
        return [next(of_all) if words.ids is None else next(of_some) for words in wanted]

    def _words(self, wanted: list[RandomWordsRequest], ids: list[np.ndarray] | None) -> list[np.ndarray]:
        """Those of the ids, or of all ids where there are none."""
        if not wanted:
            return []
        n_vocab = self.hparams.n_vocab
        keys = np.array([words.numbers.key for words in wanted])
        firsts = np.array([words.token * numbers_per_token(n_vocab) for words in wanted], np.uint64)
        counts = np.array([n_vocab] * len(wanted) if ids is None else [len(some) for some in ids], np.int64)
        all_ids = None if ids is None else np.concatenate(ids).astype(np.int32)
        found = np.empty(counts.sum(), np.uint32)
        at_keys, at_firsts, at_counts, at_found = (array.ctypes.data for array in (keys, firsts, counts, found))
        at_ids = None if all_ids is None else all_ids.ctypes.data
        threads = self.model.threads if all_ids is None else 1  # few words are drawn before other threads wake
        check(self.words(at_keys, at_firsts, at_counts, len(wanted), at_ids, threads, at_found))
        return np.split(found, np.cumsum(counts)[:-1])


def pointers(arrays: Sequence[np.ndarray]) -> Any:
    """Their addresses, as C wants them; whoever uses them must keep the arrays."""
    return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))


def _outside(matrix: Packed | Mapping) -> COutside:
    """A matrix, or one with a bias; the caller keeps it."""
    packed, bias = (matrix, None) if isinstance(matrix, Packed) else (matrix["w"], matrix["b"])
    return COutside(*(None if array is None else array.ctypes.data for array in (*packed, bias)))


def _vectors(block: Mapping) -> np.ndarray:
    """All that is not a matrix in a layer, one after another, in the order in which forward.h takes it apart."""
    norms_and_biases = [
        *(block["ln_1"][name] for name in "gb"),
        *(block["attn"][name]["b"] for name in ("c_attn", "c_proj")),
        *(block["ln_2"][name] for name in "gb"),
        *(block["mlp"][name]["b"] for name in ("c_fc", "c_proj")),
    ]
    scales = [block[part][name]["w"].scale for part, name in MATRICES]
    return np.concatenate([*norms_and_biases, *scales])
