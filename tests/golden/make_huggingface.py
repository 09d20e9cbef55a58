"""Makes golden/huggingface.npz, huggingface.json and huggingface/: what transformers computes and what it writes.

    PYTHONPATH=src:tests/helpers python tests/golden/make_huggingface.py

Needs torch and transformers, which the tests do not.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import huggingface_dirs
import numpy as np
import torch
import transformers

HERE = Path(__file__).parent
SAVED = HERE / "huggingface"
SMALL = {"n_embd": 8, "n_layer": 1, "n_positions": 8}
TEXTS = [
    "the cat sat on the mat",
    " the  cat\n\n\tsat ",
    "don't 'S we'll 12345 x²½Ⅷ",
    "Größe, naïve, 你好 🦄 \u200b\u3000\x85\xa0",
    "",
    "   ",
    "\x00\x1c\x1f\r\n",
    "a" * 50 + "!" * 9,
]


def logits(model: torch.nn.Module) -> np.ndarray:
    """Return the float32 logits [V] after huggingface_dirs.PROMPT_IDS."""
    with torch.no_grad():
        return model.eval()(torch.tensor([huggingface_dirs.PROMPT_IDS])).logits[0, -1].float().numpy()


def variants() -> dict[str, np.ndarray]:
    found = {}
    for name, changes in huggingface_dirs.VARIANTS.items():
        with tempfile.TemporaryDirectory() as folder:
            directory = huggingface_dirs.write(Path(folder), changes)
            model, loading = transformers.GPT2LMHeadModel.from_pretrained(
                directory, dtype=torch.float32, output_loading_info=True
            )
            assert not loading["missing_keys"] and not loading["unexpected_keys"], (name, loading)
            found[name] = logits(model)
    return found


def save(model: transformers.GPT2LMHeadModel, tokenizer: transformers.PreTrainedTokenizerBase) -> None:
    """Save one model in each form; the PyTorch files are what transformers wrote before safetensors."""
    shutil.rmtree(SAVED, ignore_errors=True)
    SAVED.mkdir()
    tokenizer.save_pretrained(SAVED)
    model.save_pretrained(SAVED)
    model.save_pretrained(SAVED / "sharded", max_shard_size="6KB")
    weights = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    torch.save(weights, SAVED / "pytorch_model.bin")
    torch.save(weights, SAVED / "legacy.bin", _use_new_zipfile_serialization=False)
    model.to(torch.bfloat16).save_pretrained(SAVED / "bfloat16")
    for unused in SAVED.rglob("generation_config.json"):
        unused.unlink()


def main() -> None:
    outputs = variants()
    with tempfile.TemporaryDirectory() as folder:
        directory = huggingface_dirs.write(Path(folder), SMALL)
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
        model = transformers.GPT2LMHeadModel.from_pretrained(directory, dtype=torch.float32)
        outputs["saved"] = logits(model)
        save(model, tokenizer)
    np.savez_compressed(HERE / "huggingface.npz", **outputs)
    expected = {
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "texts": TEXTS,
        "ids": [tokenizer(text)["input_ids"] for text in TEXTS],
        "end": tokenizer.eos_token_id,
    }
    (HERE / "huggingface.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
