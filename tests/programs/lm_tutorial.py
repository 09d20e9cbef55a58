"""Cells of a German tutorial: N tokens, text up to a full stop, next-word probabilities.

Arguments: the model's folder, a prefix, and the piece at which the second function stops.
"""

import json
import sys
from pathlib import Path

import numpy as np

import lm.inference as lmi

root, prefix, stop = sys.argv[1:]
np.random.seed(1)
mw = lmi.ModelWrapper.load(Path(root))


def gpt2_gen(mw, prefix, n_tokens_to_generate=10, top_k=8):
    tokens = mw.tokenize(prefix)
    tokens_gen = mw.generate_tokens(tokens, n_tokens_to_generate, top_k)
    return mw.sp_model.DecodePieces(tokens_gen)


def gpt2_gen_until(mw, prefix, stop_token=".", top_k=8):
    tokens = mw.tokenize(prefix)
    next_token = ""
    while next_token != stop_token:
        ntk = mw.get_next_top_k(tokens, top_k)
        logprobs = np.array(list(map(lambda a: a[0], ntk)))
        probs = np.exp(logprobs) / np.exp(logprobs).sum()
        next_token = ntk[np.random.choice(top_k, p=probs)][1]
        tokens.append(next_token)
        print("DEBUG:", mw.sp_model.DecodePieces(tokens))
    return mw.sp_model.DecodePieces(tokens)


sentence = gpt2_gen(mw, prefix, n_tokens_to_generate=16, top_k=8)
until = gpt2_gen_until(mw, prefix, stop_token=stop, top_k=8)


def autocomplete(prefix_text):
    """Answer the page, which inserts the answer after the prefix."""
    generated_text = gpt2_gen(mw, prefix_text, n_tokens_to_generate=5, top_k=8)
    return generated_text[len(prefix_text) :]


np.random.seed(2)
inserted = autocomplete(prefix)
np.random.seed(2)
whole = gpt2_gen(mw, prefix, n_tokens_to_generate=5, top_k=8)
top = [(token, float(np.exp(log_prob))) for log_prob, token in mw.get_next_top_k(mw.tokenize(prefix), 10)]
occurred = mw.get_occurred_log_probs([mw.END_OF_TEXT] + mw.tokenize(prefix))
shape = list(mw.get_log_probs(mw.tokenize(prefix)).shape)
results = {
    "sentence": sentence,
    "until": until,
    "inserted": inserted,
    "whole": whole,
    "top": top,
    "occurred": occurred,
    "shape": shape,
}
print(json.dumps({**results, "n_ctx": mw.model.hparams.n_ctx}), file=sys.stderr)
