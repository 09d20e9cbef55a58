#!/usr/bin/env python3
"""Command: the same numbers as EleutherAI's lm-evaluation-harness, on the same weights through transformers.

    python benchmarks/beside_lm_eval.py MODEL_DIRECTORY TEXT_FILE PEERS/bin/python

PEERS is an environment with lm-eval[hf], which brings torch and transformers. Two tasks over the text:
`loglikelihood_rolling`, beside `evaluate.py --in_text`, and `loglikelihood` of the last word of each of its longer
lines, beside `evaluate.py lambada-word`. Prints both sides and how far apart they are; the last line is JSON.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve()
PEERS = HERE.parent / "peers"
ROLLING = """
task: rolling
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}/rolling.jsonl}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list: [{{metric: word_perplexity}}, {{metric: byte_perplexity}}, {{metric: bits_per_byte}}]
"""
ENDINGS = """
task: endings
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}/endings.jsonl}}}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{{{text.split(' ')[:-1]|join(' ')}}}}"
doc_to_target: "{{{{' ' + text.split(' ')[-1]}}}}"
target_delimiter: ""
metric_list: [{{metric: perplexity}}, {{metric: acc}}]
"""


def harness(folder, data):
    """In the peers' Python: the two tasks' numbers, as a line of JSON."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    for name, task in (("rolling", ROLLING), ("endings", ENDINGS)):
        Path(data, f"{name}.yaml").write_text(task.format(data=data), encoding="utf-8")
    model = HFLM(pretrained=folder, device="cpu", dtype="float32", batch_size=1)
    manager = TaskManager(include_path=data, include_defaults=False)
    found = lm_eval.simple_evaluate(model, tasks=["rolling", "endings"], task_manager=manager, bootstrap_iters=0)
    numbers = {name: {key.split(",")[0]: value for key, value in one.items()} for name, one in found["results"].items()}
    print(json.dumps(numbers, default=str))


def as_transformers_reads_it(model, folder, python):
    """The weights by the peers' converter, the vocabulary under transformers' names."""
    exported = folder.with_name("exported")
    subprocess.run([sys.executable, PEERS / "ours.py", "export", model, exported], check=True)
    subprocess.run([python, PEERS / "transformers_pytorch.py", "convert", exported, folder, "float32"], check=True)
    shutil.copy(model / "encoder.json", folder / "vocab.json")
    shutil.copy(model / "vocab.bpe", folder / "merges.txt")
    names = {f"{kind}_token": "<|endoftext|>" for kind in ("bos", "eos", "unk")}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer", **names}))
    return folder


def evaluated(model, *arguments):
    command = [sys.executable, HERE.parents[1] / "scripts" / "evaluate.py", *arguments, "--model_name", model, "--json"]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["numbers"]


def main(model, text, python):
    # White space at the ends is two words to the harness, which are none.
    model, content = Path(model).resolve(), Path(text).read_text(encoding="utf-8").strip()
    with tempfile.TemporaryDirectory() as temporary:
        data = Path(temporary)
        lines = [line.strip() for line in content.splitlines() if line.strip().count(" ") > 3]
        (data / "text.txt").write_text(content, encoding="utf-8")
        (data / "rolling.jsonl").write_text(json.dumps({"text": content}) + "\n")
        (data / "endings.jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
        folder = as_transformers_reads_it(model, data / "transformers", python)
        answer = subprocess.run([python, HERE, "harness", folder, data], check=True, stdout=subprocess.PIPE).stdout
        theirs = json.loads(answer.splitlines()[-1])
        rolling = evaluated(model, "--in_text", str(data / "text.txt"))
        endings = evaluated(model, "lambada-word", "--data", str(data / "endings.jsonl"))
    pairs = {
        "rolling, bits per byte": (rolling["bits per byte"], theirs["rolling"]["bits_per_byte"]),
        "rolling, perplexity per word": (rolling["perplexity per word"], theirs["rolling"]["word_perplexity"]),
        f"{len(lines)} last words, perplexity": (endings["perplexity"], theirs["endings"]["perplexity"]),
        f"{len(lines)} last words, accuracy": (endings["accuracy, %"] / 100, theirs["endings"]["acc"]),
    }
    for name, (ours, other) in pairs.items():
        print(f"{name}: ours {ours:.7g}, lm-evaluation-harness {other:.7g}, relative difference {ours / other - 1:.1e}")
    print(json.dumps(pairs))


if __name__ == "__main__":
    harness(*sys.argv[2:]) if sys.argv[1:2] == ["harness"] else main(*sys.argv[1:])
