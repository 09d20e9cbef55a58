"""Ids and logits from transformers, as JSON: the ids of each text, and the text that they decode to.

Run as `python peer_transformers.py FOLDER '{"texts": [TEXT, ...], "logits": OUT.npz}'` with a Python that has
transformers and PyTorch. The logits of each text are written to OUT.npz.
"""

import json
import sys

import numpy as np
import torch
import transformers

if __name__ == "__main__":
    folder, request = sys.argv[1], json.loads(sys.argv[2])
    transformers.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model, loading_info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, torch_dtype=torch.float32, output_loading_info=True
    )
    model.eval()
    texts = []
    logits = {}
    for number, text in enumerate(request["texts"]):
        ids = tokenizer(text)["input_ids"]
        texts.append({"ids": ids, "text": tokenizer.decode(ids)})
        if ids:
            with torch.no_grad():
                logits[str(number)] = model(torch.tensor([ids[: model.config.n_positions]])).logits[0].numpy()
    np.savez(request["logits"], **logits)
    print(
        json.dumps(
            {"texts": texts, "missing": sorted(map(str, loading_info["missing_keys"])), "end": tokenizer.eos_token}
        )
    )
