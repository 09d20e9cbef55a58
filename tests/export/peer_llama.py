"""Greedy continuations from llama.cpp, as JSON: the ids of each prompt, and the new ids and their text.

Run as `python peer_llama.py FILE '{"prompts": [TEXT, ...], "length": N}'` with a Python that has llama-cpp-python.
"""

import json
import os
import sys

import llama_cpp
import numpy as np

F32 = 0  # type of keys and values, instead of the default F16


def continue_greedily(model, prompt, length):
    ids = model.tokenize(prompt.encode("utf-8"), add_bos=False, special=False)
    model.reset()
    new_ids = []
    next_ids = ids
    for _ in range(length):
        model.eval(next_ids)
        logits = llama_cpp.llama_get_logits_ith(model.ctx, -1)
        next_ids = [int(np.ctypeslib.as_array(logits, shape=(model.n_vocab(),)).argmax())]
        new_ids += next_ids
    return {"ids": ids, "new": new_ids, "text": model.detokenize(new_ids).decode("utf-8", "replace")}


if __name__ == "__main__":
    path, request = sys.argv[1], json.loads(sys.argv[2])
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # llama.cpp prints to stdout
    model = llama_cpp.Llama(path, n_ctx=0, n_threads=2, n_threads_batch=2, verbose=False, type_k=F32, type_v=F32)
    print(
        json.dumps([continue_greedily(model, prompt, request["length"]) for prompt in request["prompts"]]), file=output
    )
