"""transformers beside us: `python peer_transformers.py FOLDER '{"texts": [...], "logits": OUT.npz}'` prints JSON, each
text's ids and what they decode to, and writes the logits of each. For a Python that has transformers and PyTorch."""

import json
import sys

import numpy as np
import torch
import transformers

if __name__ == "__main__":
    folder, request = sys.argv[1], json.loads(sys.argv[2])
    transformers.logging.set_verbosity_error()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model, about = transformers.AutoModelForCausalLM.from_pretrained(
        folder, torch_dtype=torch.float32, output_loading_info=True
    )
    model.eval()
    found, logits = [], {}
    for number, text in enumerate(request["texts"]):
        ids = tokenizer(text)["input_ids"]
        found.append({"ids": ids, "text": tokenizer.decode(ids)})
        if ids:
            with torch.no_grad():
                logits[str(number)] = model(torch.tensor([ids[: model.config.n_positions]])).logits[0].numpy()
    np.savez(request["logits"], **logits)
    print(json.dumps({"texts": found, "missing": sorted(map(str, about["missing_keys"])), "end": tokenizer.eos_token}))
