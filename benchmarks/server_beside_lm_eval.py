#!/usr/bin/env python3
"""Command: EleutherAI's lm-evaluation-harness as a client of the server, beside what the library computes itself.

    python benchmarks/server_beside_lm_eval.py MODEL_DIRECTORY TEXT_FILE PEERS/bin/python

PEERS is an environment with lm-eval[api] and transformers. The harness scores the last word of each of the text's
longer lines through `local-completions`, with the model's tokenizer in transformers' form; the library scores the same
ids. Prints the largest difference of a log-likelihood, and how many of the harness's "is greedy" differ.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve()
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "src"))

from beside_lm_eval import ENDINGS


def harness(url, model, tokenizer, data):
    """In the peers' Python: [context, continuation, log-likelihood, is greedy] of each line, as JSON."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    Path(data, "endings.yaml").write_text(ENDINGS.format(data=data), encoding="utf-8")
    arguments = f"model={model},base_url={url}/v1/completions,tokenizer={tokenizer},tokenizer_backend=huggingface"
    found = lm_eval.simple_evaluate(
        "local-completions",
        model_args=f"{arguments},num_concurrent=4,max_retries=1",
        tasks=["endings"],
        task_manager=TaskManager(include_path=data, include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
    )
    samples = found["samples"]["endings"]
    rows = [[*sample["arguments"][0], *sample["resps"][0][0]] for sample in samples]
    print(json.dumps(rows))


def directly(model, context, continuation):
    """The log-likelihood of the continuation, and whether each of its tokens is the likeliest."""
    from gpt2 import generate
    from gpt2.request import Request, Sampling

    ids = model.encoder.encode(context + continuation)
    first = len(model.encoder.encode(context.rstrip()))  # the harness counts spaces before it to the continuation
    request = Request(ids, 0, Sampling(temperature=0), logprobs=1, echo=True)
    said = next(generate.completions(model, [request])).prompt[first:]
    return sum(choice.logprob for choice in said), all(choice.top_logprobs[0][0] == choice.id for choice in said)


def main(path, text, python):
    from gpt2 import generate

    path = Path(path).resolve()
    lines = [line.strip() for line in Path(text).read_text(encoding="utf-8").splitlines() if line.count(" ") > 3]
    with tempfile.TemporaryDirectory() as data:
        endings = Path(data, "endings.jsonl")
        endings.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines), encoding="utf-8")
        tokenizer = Path(data, "huggingface")
        convert = [sys.executable, ROOT / "scripts/convert.py", path, tokenizer, "--to", "huggingface"]
        subprocess.run(convert, check=True, stderr=subprocess.DEVNULL)
        serve = [sys.executable, ROOT / "scripts/serve.py", "--model_name", path, "--port", "0"]
        with subprocess.Popen(serve, stderr=subprocess.PIPE, text=True) as server:
            try:
                url = server.stderr.readline().split(" on ")[1].split(";")[0]
                asked = [python, HERE, "harness", url, path.name, tokenizer, data]
                said = subprocess.run(asked, check=True, capture_output=True).stdout
            finally:
                server.terminate()
    rows = json.loads(said.splitlines()[-1])
    model = generate.load(str(path))
    own = [directly(model, context, continuation) for context, continuation, *_ in rows]
    largest = max(abs(row[2] - logprob) for row, (logprob, _) in zip(rows, own))
    differ = sum(bool(row[3]) != greedy for row, (_, greedy) in zip(rows, own))
    print(f"{len(rows)} log-likelihoods: the largest difference is {largest:.1e}; {differ} differ in what is greedy")


if __name__ == "__main__":
    harness(*sys.argv[2:]) if sys.argv[1] == "harness" else main(*sys.argv[1:])
