"""Makes golden/added_tokens.json: the ids that transformers gives for texts with added tokens.

    PYTHONPATH=src:tests/helpers python tests/golden/make_added_tokens.py [TEXTS]

Needs transformers, which the tests do not. With a number of TEXTS, it compares this library with transformers on as
many random texts of each vocabulary instead, and writes nothing.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import added_token_dirs
import transformers

HERE = Path(__file__).parent
N_TEXTS = 24


def main() -> None:
    n_texts = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    expected = {}
    for name, case in added_token_dirs.CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            directory = added_token_dirs.write(Path(folder), case)
            tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
            texts = added_token_dirs.texts(case, n_texts or N_TEXTS, seed=bool(n_texts))
            ids = [tokenizer(text)["input_ids"] for text in texts]
            if n_texts:
                from gpt2.formats import vocabularies

                encoder = vocabularies.load(directory)
                wrong = [i for i, text in enumerate(texts) if encoder.encode(text) != ids[i]]
                print(f"{name}: {len(wrong)} of {n_texts} differ")
                for i in wrong[:3]:
                    print(f"  {texts[i]!r}: {encoder.encode(texts[i])}, transformers {ids[i]}")
            expected[name] = {"end": tokenizer.eos_token_id, "texts": texts, "ids": ids}
    if not n_texts:
        content = {"transformers": transformers.__version__, "cases": expected}
        (HERE / "added_tokens.json").write_text(json.dumps(content) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
