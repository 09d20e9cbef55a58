"""llama.cpp beside us: `python peer_llama.py FILE '{"prompts": [TEXT, ...], "length": N}'` prints JSON, for each text
its ids, and the ids and text that follow greedily. For a Python that has llama-cpp-python."""

import json
import os
import sys

import llama_cpp
import numpy as np

F32 = 0  # the type of keys and values: the default is F16


def written(model, prompt, length):
    ids = model.tokenize(prompt.encode("utf-8"), add_bos=False, special=False)
    model.reset()
    new, waiting = [], ids
    for _ in range(length):
        model.eval(waiting)
        logits = llama_cpp.llama_get_logits_ith(model.ctx, -1)
        waiting = [int(np.ctypeslib.as_array(logits, shape=(model.n_vocab(),)).argmax())]
        new += waiting
    return {"ids": ids, "new": new, "text": model.detokenize(new).decode("utf-8", "replace")}


if __name__ == "__main__":
    path, request = sys.argv[1], json.loads(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    model = llama_cpp.Llama(path, n_ctx=0, n_threads=2, n_threads_batch=2, verbose=False, type_k=F32, type_v=F32)
    print(json.dumps([written(model, text, request["length"]) for text in request["prompts"]]), file=answers)
