"""A backend whose prefill and decode step are one call of the native library each, in float32, bfloat16 or int8.

It does not need TensorFlow.

Shapes: N segments, K ids of all segments, W positions that need logits, V vocabulary.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpt2 import devices
from gpt2.engine.backend import Logits, RandomWordsRequest, Segment, checked_logits
from gpt2.engine.kv_cache import BLOCK_SLOTS, BlockPool
from gpt2.engine.native import packing
from gpt2.engine.native.calls import library_int, raise_library_error
from gpt2.engine.native.huge_pages import CHUNK_BYTES, allocate_chunk
from gpt2.engine.native.packed_store import PackedStore
from gpt2.engine.native.packing import PACKED_DTYPES, PackedMatrix
from gpt2.formats.weights import Weights, nest
from gpt2.hparams import GELU, SIZES, HParams
from gpt2.request import DEFAULT_PRECISION
from gpt2.sample import numbers_per_token

POINTERS = ctypes.POINTER(ctypes.c_void_p)
SEGMENT_HEADER = 3  # numbers before a segment's blocks, as in forward.h
NO_BLOCK = -1  # fills a segment's line after its last block
LAYER_MATRICES = (("attn", "c_attn"), ("attn", "c_proj"), ("mlp", "c_fc"), ("mlp", "c_proj"))
OTHER_MATRICES = ("wte", "in_proj", "out_proj", "lm_head")  # matrices outside the layers; some are optional
MAX_CHUNK_BLOCKS = 32  # limits the addresses that a small model's cache reserves


class CMatrix(ctypes.Structure):
    """The C structure `gpt2_matrix` of gpt2.h."""

    _fields_ = [(name, ctypes.c_void_p) for name in ("w", "scale", "bias")]


class CModel(ctypes.Structure):
    """The C structure `gpt2_model` of gpt2.h."""

    _fields_ = [
        *((name, ctypes.c_long) for name in ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer")),
        *((name, ctypes.c_long) for name in ("n_inner", "n_token_embd", "exact_gelu", "scale_by_layer", "threads")),
        ("epsilon", ctypes.c_double),
        *((name, CMatrix) for name in OTHER_MATRICES),
        ("matrices", POINTERS),
        *((name, ctypes.c_void_p) for name in ("wpe", "ln_f")),
        ("vectors", POINTERS),
    ]


class CCache(ctypes.Structure):
    """The C structure `gpt2_cache` of gpt2.h."""

    _fields_ = [("n_blocks", ctypes.c_long), ("blocks", ctypes.c_void_p)]


class NativeBlockPool(BlockPool):
    """A pool of blocks in chunks of huge pages, which returns the pages of discarded blocks to the system.

    The library writes into the blocks; cache.h describes their layout.
    """

    def __init__(self, block_bytes: int) -> None:
        """Create a pool without memory.

        Args:
            block_bytes: Memory of one block.
        """
        super().__init__(block_bytes)
        self.stride = -(-block_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        self.chunk_blocks = min(MAX_CHUNK_BLOCKS, max(1, CHUNK_BYTES // self.stride))
        self.chunks: list[tuple[mmap.mmap, int]] = []  # each with the offset of its first block
        self.touched_bytes: dict[int, int] = {}  # block -> bytes touched from its start
        self.addresses: np.ndarray = np.zeros(0, np.uint64)  # of each block; 0 without memory

    def has_memory(self, block: int) -> bool:
        """Implement `BlockPool.has_memory`."""
        return block < len(self.addresses) and bool(self.addresses[block])

    def provide_memory(self, block: int, max_bytes: int | None = None) -> None:
        """Implement `BlockPool.provide_memory`."""
        if self.has_memory(block):
            return
        while len(self.chunks) * self.chunk_blocks <= block:
            self.chunks.append(allocate_chunk(self.chunk_blocks * self.stride))
        memory = self._memory(block)
        start = self.touched_bytes.get(block, 0)
        end = self.block_bytes if max_bytes is None else start + -(-max_bytes // mmap.PAGESIZE) * mmap.PAGESIZE
        memory[start : end : mmap.PAGESIZE] = 0
        self.touched_bytes[block] = end
        if end >= self.block_bytes:
            self._set_address(block, memory.ctypes.data)

    def discard_memory(self, block: int) -> None:
        """Implement `BlockPool.discard_memory`."""
        self._set_address(block, 0)
        del self.touched_bytes[block]
        chunk, start = self.chunks[block // self.chunk_blocks]
        if hasattr(mmap, "MADV_DONTNEED"):
            chunk.madvise(mmap.MADV_DONTNEED, start + block % self.chunk_blocks * self.stride, self.stride)

    def copy_memory(self, source: int, target: int) -> None:
        """Implement `BlockPool.copy_memory`."""
        self._memory(target)[:] = self._memory(source)

    def _memory(self, block: int) -> np.ndarray:
        chunk, start = self.chunks[block // self.chunk_blocks]
        return np.frombuffer(chunk, np.uint8, self.block_bytes, start + block % self.chunk_blocks * self.stride)

    def _set_address(self, block: int, address: int) -> None:
        """Set an address in a new array, because a call in another thread may be using the old array."""
        addresses = np.zeros(max(len(self.addresses), len(self.chunks) * self.chunk_blocks), np.uint64)
        addresses[: len(self.addresses)] = self.addresses
        addresses[block] = address
        self.addresses = addresses


class NativeBackend:
    """A backend that computes with the native library; implements `engine.backend.Backend`."""

    name = "the native step"
    device = devices.CPU

    def __init__(
        self,
        library: ctypes.CDLL,
        weights: Weights,
        hparams: HParams,
        precision: str = DEFAULT_PRECISION,
        threads: int | None = None,
        store: PackedStore | None = None,
    ) -> None:
        """Pack the weights, or load them packed.

        Args:
            library: The library that `build.load` returns.
            weights: The model's weights.
            hparams: The model's sizes.
            precision: The weights' precision in memory.
            threads: Number of compute threads; None for one per core. The system may grant fewer.
            store: The store from which packed weights are loaded and to which they are written; None for no store.

        Raises:
            GPT2Error: The weights are damaged.
            MemoryError: There is not enough memory for them.
        """
        self.hparams = hparams
        assert library_int(library, "gpt2_slots") == BLOCK_SLOTS
        self.type = list(PACKED_DTYPES).index(precision)
        self._declare(library)
        threads = threads or devices.available_cores()
        pack = functools.partial(packing.pack_weights, library, weights, precision, threads)
        packed = store.load_or_pack(weights, precision, pack) if store else pack()
        self.packed = nest(packed.items())  # the arrays that the model points into
        layers = [self.packed[f"h{layer}"] for layer in range(hparams.n_layer)]
        self.vectors = [_layer_vectors(layer) for layer in layers]
        self.ln_f = np.concatenate([self.packed["ln_f"]["g"], self.packed["ln_f"]["b"]])
        self.model = CModel(
            n_inner=hparams.mlp_size,
            n_token_embd=hparams.token_size,
            exact_gelu=hparams.activation_function == GELU,
            scale_by_layer=hparams.scale_attn_by_inverse_layer_idx,
            threads=threads,
            epsilon=hparams.layer_norm_epsilon,
            **{name: getattr(hparams, name) for name in SIZES},
            **{name: _c_matrix(self.packed[name]) for name in OTHER_MATRICES if name in self.packed},
            matrices=pointers([layer[part][name]["w"].values for layer in layers for part, name in LAYER_MATRICES]),
            wpe=self.packed["wpe"].ctypes.data,
            ln_f=self.ln_f.ctypes.data,
            vectors=pointers(self.vectors),
        )
        if hparams.tie_word_embeddings:
            self.model.lm_head = self.model.wte
        self.block_bytes = library.gpt2_block_bytes(self.type, ctypes.byref(self.model))

    def _declare(self, library: ctypes.CDLL) -> None:
        """Declare the types of the library's functions."""
        size = ctypes.c_long
        address = ctypes.c_void_p
        self.forward = library.gpt2_forward
        self.forward.argtypes = [ctypes.c_int, *[address] * 3, size, size, address, size, address, address]
        self.forward.restype = ctypes.c_char_p
        self.words = library.gpt2_random_words
        self.words.argtypes = [address, address, address, size, address, size, address]
        self.words.restype = ctypes.c_char_p
        library.gpt2_block_bytes.argtypes = [ctypes.c_int, address]
        library.gpt2_block_bytes.restype = size

    def new_pool(self) -> NativeBlockPool:
        """Implement `Backend.new_pool`."""
        return NativeBlockPool(self.block_bytes)

    def extend(self, pool: BlockPool, segments: Sequence[Segment]) -> Logits:
        """Implement `Backend.extend`."""
        assert isinstance(pool, NativeBlockPool)
        width = SEGMENT_HEADER + max([len(segment.blocks) for segment in segments])
        lines: np.ndarray = np.full((len(segments), width), NO_BLOCK, np.int32)  # [N, width]
        n_logits = 0
        for line, segment in zip(lines, segments):
            line[:SEGMENT_HEADER] = segment.start, len(segment.ids), segment.n_logits
            line[SEGMENT_HEADER : SEGMENT_HEADER + len(segment.blocks)] = segment.blocks
            n_logits += segment.n_logits
        ids = np.concatenate([segment.ids for segment in segments]).astype(np.int32)  # [K]
        values = np.empty([n_logits, self.hparams.n_vocab], np.float32)  # [W, V]
        log_totals = np.empty(n_logits, np.float32)  # [W]
        addresses = pool.addresses  # the pool may replace this array during the call
        cache = CCache(len(addresses), addresses.ctypes.data)
        error = self.forward(
            self.type,
            ctypes.byref(self.model),
            ctypes.byref(cache),
            lines.ctypes.data,
            *lines.shape,
            ids.ctypes.data,
            len(ids),
            values.ctypes.data,
            log_totals.ctypes.data,
        )
        if error:
            raise_library_error(error)
        return checked_logits(values, log_totals)

    def random_words(self, requests: Sequence[RandomWordsRequest]) -> list[np.ndarray]:
        """Implement `Backend.random_words`."""
        whole = [request for request in requests if request.ids is None]
        partial = [request for request in requests if request.ids is not None]
        words_of_whole = iter(self._draw_words(whole, None) if whole else [])
        ids = [request.ids for request in partial if request.ids is not None]
        words_of_partial = iter(self._draw_words(partial, ids) if partial else [])
        return [next(words_of_whole) if request.ids is None else next(words_of_partial) for request in requests]

    def _draw_words(self, requests: list[RandomWordsRequest], ids: list[np.ndarray] | None) -> list[np.ndarray]:
        """Return the words of the ids of each request, or of the whole vocabulary if ids is None."""
        keys = np.array([request.numbers.key for request in requests])
        n_numbers = numbers_per_token(self.hparams.n_vocab)
        first_numbers = np.array([request.token * n_numbers for request in requests], np.uint64)
        if ids is None:
            counts = np.full(len(requests), self.hparams.n_vocab, np.int64)
            all_ids = None
            threads = self.model.threads
        else:
            counts = np.array([len(request_ids) for request_ids in ids], np.int64)
            all_ids = np.concatenate(ids).astype(np.int32)
            threads = 1  # waking other threads takes longer than drawing a few words
        words = np.empty(counts.sum(), np.uint32)
        error = self.words(
            keys.ctypes.data,
            first_numbers.ctypes.data,
            counts.ctypes.data,
            len(requests),
            None if all_ids is None else all_ids.ctypes.data,
            threads,
            words.ctypes.data,
        )
        if error:
            raise_library_error(error)
        return np.split(words, np.cumsum(counts)[:-1])


def pointers(arrays: Sequence[np.ndarray]) -> Any:
    """Return the arrays' addresses as a C array; the caller must keep the arrays alive while it is used."""
    return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))


def _c_matrix(matrix: PackedMatrix | Mapping) -> CMatrix:
    """Return a matrix and its optional bias as a C structure; the caller must keep the matrix alive."""
    packed, bias = (matrix, None) if isinstance(matrix, PackedMatrix) else (matrix["w"], matrix["b"])
    return CMatrix(*(None if array is None else array.ctypes.data for array in (*packed, bias)))


def _layer_vectors(layer: Mapping) -> np.ndarray:
    """Return a layer's gains, biases and scales as one vector, in the order that forward.h expects."""
    norms_and_biases = [
        *(layer["ln_1"][name] for name in "gb"),
        *(layer["attn"][name]["b"] for name in ("c_attn", "c_proj")),
        *(layer["ln_2"][name] for name in "gb"),
        *(layer["mlp"][name]["b"] for name in ("c_fc", "c_proj")),
    ]
    scales = [layer[part][name]["w"].scale for part, name in LAYER_MATRICES]
    return np.concatenate([*norms_and_biases, *scales])
