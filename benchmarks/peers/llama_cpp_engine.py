"""llama.cpp through llama-cpp-python as an engine of benchmarks/decoding.py; `gguf` writes its files."""

import os

import numpy as np
import worker

FILE = "model.gguf"
BATCH = 512  # tokens of a decode, llama.cpp's own default for prompts
NORMS = {"attn_norm": "ln_1", "ffn_norm": "ln_2"}
KERNELS = {"attn_qkv": "attn/c_attn", "attn_output": "attn/c_proj", "ffn_up": "mlp/c_fc", "ffn_down": "mlp/c_proj"}


def convert(weights, folder, precision):
    import gguf

    variables, hparams = worker.read_checkpoint(weights)
    os.mkdir(folder)
    writer = gguf.GGUFWriter(os.path.join(folder, FILE), "gpt2")
    describe(writer, hparams)
    kind = gguf.GGMLQuantizationType[precision]
    writer.add_file_type({"F32": 0, "F16": 1, "Q8_0": 7}[precision])
    for name, array in named(variables, hparams["n_layer"]):
        if array.ndim == 2 and name != "position_embd.weight" and precision != "F32":
            writer.add_tensor(name, gguf.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def describe(writer, hparams):
    writer.add_context_length(hparams["n_ctx"])
    writer.add_embedding_length(hparams["n_embd"])
    writer.add_feed_forward_length(4 * hparams["n_embd"])
    writer.add_block_count(hparams["n_layer"])
    writer.add_head_count(hparams["n_head"])
    writer.add_layer_norm_eps(1e-5)
    n_vocab = hparams["n_vocab"]  # a file without a vocabulary is refused; this one is never used
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{i}" for i in range(n_vocab)])
    writer.add_token_types([1] * n_vocab)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(n_vocab - 1)
    writer.add_eos_token_id(n_vocab - 1)


def named(variables, n_layer):
    """llama.cpp's name and array of each tensor; its kernels are [out, in]."""
    yield "token_embd.weight", variables["model/wte"]
    yield "position_embd.weight", variables["model/wpe"]
    yield "output_norm.weight", variables["model/ln_f/g"]
    yield "output_norm.bias", variables["model/ln_f/b"]
    for layer in range(n_layer):
        for theirs, ours in NORMS.items():
            yield f"blk.{layer}.{theirs}.weight", variables[f"model/h{layer}/{ours}/g"]
            yield f"blk.{layer}.{theirs}.bias", variables[f"model/h{layer}/{ours}/b"]
        for theirs, ours in KERNELS.items():
            yield f"blk.{layer}.{theirs}.weight", np.ascontiguousarray(variables[f"model/h{layer}/{ours}/w"].T)
            yield f"blk.{layer}.{theirs}.bias", variables[f"model/h{layer}/{ours}/b"]


class Engine:
    def __init__(self, folder, precision, threads):
        import llama_cpp

        self.logits = llama_cpp.llama_get_logits_ith
        self.model = llama_cpp.Llama(
            os.path.join(folder, FILE),
            n_ctx=0,  # the model's own
            n_batch=BATCH,
            n_threads=threads,
            n_threads_batch=threads,
            verbose=False,
        )

    def step(self, ids):
        self.model.eval(ids)
        logits = np.ctypeslib.as_array(self.logits(self.model.ctx, -1), shape=(self.model.n_vocab(),))
        return int(logits.argmax())

    def decoding(self, tokens, batch):
        assert batch == 1, "llama-cpp-python decodes one text at a time"
        first = self.step([self.next_token(worker.PROMPT)])

        def steps(token=first):
            for _ in range(tokens):
                token = self.step([token])

        return steps

    def next_token(self, ids):
        self.model.reset()
        return self.step(ids)

    def scoring(self, ids, window):
        """Its decode alone, with the logits of all positions, in batches of 512: what llama-perplexity makes of them
        afterwards is not timed."""
        import llama_cpp

        batch = llama_cpp.llama_batch_init(BATCH, 0, 1)

        def score():
            for start in range(0, len(ids) - 1, window):
                self.model.reset()
                llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.model.ctx), True)
                fed = ids[start : min(start + window, len(ids) - 1)]
                for begin in range(0, len(fed), BATCH):
                    part = fed[begin : begin + BATCH]
                    batch.n_tokens = len(part)
                    for place, token in enumerate(part):
                        batch.token[place], batch.pos[place] = token, begin + place
                        batch.n_seq_id[place], batch.seq_id[place][0], batch.logits[place] = 1, 0, True
                    assert llama_cpp.llama_decode(self.model.ctx, batch) == 0
            return None

        return score


if __name__ == "__main__":
    worker.run(Engine, convert)
