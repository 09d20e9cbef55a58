"""CTranslate2 as an engine of benchmarks/decoding.py, in float32 or int8, its files made through its own GPT-2 layout.

A whole call of `generate_batch` is timed: with a prompt of one id it makes one step per new token and no prefill.
"""

import os

import worker


def convert(weights, folder, precision):
    from ctranslate2 import specs

    variables, hparams = worker.read_checkpoint(weights)
    spec = specs.TransformerDecoderModelSpec.from_config(
        hparams["n_layer"], hparams["n_head"], pre_norm=True, activation=specs.Activation.GELUTanh
    )
    fill(spec.decoder, variables)
    spec.register_vocabulary([str(i) for i in range(hparams["n_vocab"])])
    spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = str(hparams["n_vocab"] - 1)
    spec.validate()
    spec.optimize(quantization=precision)
    os.mkdir(folder)
    spec.save(folder)


def fill(decoder, variables):
    def norm(spec, name):
        spec.gamma, spec.beta = variables[name + "/g"], variables[name + "/b"]

    def linear(spec, name):
        spec.weight, spec.bias = variables[name + "/w"].T.copy(), variables[name + "/b"]

    decoder.scale_embeddings = False
    decoder.embeddings.weight = decoder.projection.weight = variables["model/wte"]
    decoder.position_encodings.encodings = variables["model/wpe"]
    norm(decoder.layer_norm, "model/ln_f")
    for number, layer in enumerate(decoder.layer):
        block = f"model/h{number}"
        norm(layer.self_attention.layer_norm, f"{block}/ln_1")
        linear(layer.self_attention.linear[0], f"{block}/attn/c_attn")
        linear(layer.self_attention.linear[1], f"{block}/attn/c_proj")
        norm(layer.ffn.layer_norm, f"{block}/ln_2")
        linear(layer.ffn.linear_0, f"{block}/mlp/c_fc")
        linear(layer.ffn.linear_1, f"{block}/mlp/c_proj")


class Engine:
    def __init__(self, folder, precision, threads):
        import ctranslate2

        self.model = ctranslate2.Generator(
            folder, device="cpu", compute_type=precision, inter_threads=1, intra_threads=threads
        )

    def generate(self, prompts, tokens, **options):
        return self.model.generate_batch(
            [[str(token) for token in prompt] for prompt in prompts],
            max_length=tokens,
            min_length=tokens,
            sampling_topk=1,
            include_prompt_in_result=False,
            **options,
        )

    def decoding(self, tokens, batch):
        return lambda: self.generate([worker.PROMPT] * batch, tokens)

    def bulk(self, prompts, lengths, batch):
        """Its own batches, of at most `batch` tokens; one call for all whose texts have the same length, else calls of
        64 prompts, the shorter texts cut."""

        def write():
            written = 0
            for some, wanted in worker.by_length(prompts, lengths, len(prompts) if len(set(lengths)) == 1 else 64):
                self.generate(some, max(wanted), max_batch_size=batch, batch_type="tokens")
                written += sum(wanted)
            return written

        return write

    def next_token(self, ids):
        """Not `forward_batch`: that one computes the logits of every position."""
        return self.generate([ids], 1)[0].sequences_ids[0][0]


if __name__ == "__main__":
    worker.run(Engine, convert)
