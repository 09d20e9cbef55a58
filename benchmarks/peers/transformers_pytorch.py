"""Transformers' GPT-2 on PyTorch as an engine of benchmarks/decoding.py, from safetensors."""

import worker


def convert(weights, folder, precision):
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    variables, hparams = worker.read_checkpoint(weights)
    sizes = {name: hparams[name] for name in ("n_embd", "n_head", "n_layer")}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=hparams["n_vocab"], n_positions=hparams["n_ctx"], **sizes))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(variables[variable(name)]))
    model.save_pretrained(folder)


def variable(name):
    """transformer.h.0.attn.c_attn.weight -> model/h0/attn/c_attn/w"""
    *parents, leaf = name.replace("transformer.", "model.").replace(".h.", ".h").split(".")
    if parents[-1] in ("wte", "wpe"):
        return "/".join(parents)
    kernel = "g" if parents[-1].startswith("ln_") else "w"
    return "/".join([*parents, {"weight": kernel, "bias": "b"}[leaf]])


class Engine:
    def __init__(self, folder, precision, threads):
        import torch
        from transformers import GPT2LMHeadModel

        self.torch = torch
        torch.set_num_threads(threads)
        self.model = GPT2LMHeadModel.from_pretrained(folder, dtype=getattr(torch, precision)).eval()

    def step(self, ids, cache=None):
        """ids [B, T] -> the likeliest next ones [B, 1], the cache."""
        with self.torch.inference_mode():
            output = self.model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
            return output.logits[:, -1].argmax(-1, keepdim=True), output.past_key_values

    def decoding(self, tokens, batch):
        ids, cache = self.step(self.torch.tensor([worker.PROMPT] * batch))
        ids, cache = self.step(ids, cache)

        def steps(ids=ids, cache=cache):
            for _ in range(tokens):
                ids, cache = self.step(ids, cache)

        return steps

    def next_token(self, ids):
        return self.step(self.torch.tensor([ids]))[0].item()

    def bulk(self, prompts, lengths, batch):
        """`generate` with prompts padded on the left, in batches of so many rows, the shorter texts cut."""

        def write():
            written = 0
            for some, wanted in worker.by_length(prompts, lengths, batch):
                longest = max(map(len, some))
                ids = self.torch.tensor([[0] * (longest - len(prompt)) + prompt for prompt in some])
                mask = self.torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in some])
                limits = {"max_new_tokens": max(wanted), "min_new_tokens": max(wanted)}
                with self.torch.inference_mode():
                    self.model.generate(ids, attention_mask=mask, do_sample=False, pad_token_id=0, **limits)
                written += sum(wanted)
            return written

        return write

    def scoring(self, ids, window):
        def score():
            nats = 0.0
            with self.torch.inference_mode():
                for start in range(0, len(ids) - 1, window):
                    span = self.torch.tensor([ids[start : start + window + 1]])
                    logits = self.model(span[:, :-1], use_cache=False).logits[0]
                    nats += self.torch.nn.functional.cross_entropy(logits, span[0, 1:], reduction="sum").item()
            return nats

        return score


if __name__ == "__main__":
    worker.run(Engine, convert)
