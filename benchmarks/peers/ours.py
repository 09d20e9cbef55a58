"""This project as an engine of benchmarks/decoding.py; it also makes the checkpoint that all engines share.

    python ours.py new FOLDER                  random weights of 124M size, as a model directory
    python ours.py export MODEL FOLDER         a model directory's weights for the others to convert

Its own format is the model directory itself. The vocabulary is not loaded: the requests are ids.
"""

import json
import sys
from pathlib import Path

import worker

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))


class Engine:
    def __init__(self, folder, precision, threads):
        from gpt2 import generate

        self.backend = generate.load_weights(opened(folder), None, precision, threads=threads).backend

    def batch(self, prompt, rows):
        from gpt2.engine.batch import Batch
        from gpt2.engine.token_sequence import TokenSequence
        from gpt2.request import Sampling

        batch = Batch(self.backend)
        for _ in range(rows):
            batch.add(TokenSequence(prompt, Sampling(temperature=0)))
        return batch

    def decoding(self, tokens, batch):
        rows = self.batch(worker.PROMPT, batch)
        rows.step()  # the prefill
        rows.step()

        def steps():
            for _ in range(tokens):
                rows.step()

        return steps

    def next_token(self, ids):
        rows = self.batch(ids, 1)
        while not (choices := rows.step()):  # a long prompt is read in parts
            pass
        return choices[0].id

    def bulk(self, prompts, lengths, batch):
        """A job of files of prompts but for its files."""
        from gpt2 import generate
        from gpt2.bulk.batch_worker import BatchWorker
        from gpt2.bulk.row_queue import RowNumberSet, RowQueue
        from gpt2.bulk.rows import JobRow
        from gpt2.bulk.workers import InProcessExecutor
        from gpt2.request import Request, Sampling

        rows = [
            JobRow(number, number, (Request(prompt, length, Sampling(temperature=0)),))
            for number, (prompt, length) in enumerate(zip(prompts, lengths))
        ]

        def write():
            executor = InProcessExecutor(BatchWorker(generate.Model(Numbers(), self.backend), batch))
            queue = RowQueue(rows, RowNumberSet())
            return sum(
                text.completion_tokens
                for finished_rows in iter(lambda: executor.next_finished(queue), [])
                for finished in finished_rows
                for text in finished.texts
            )

        return write

    def scoring(self, ids, window):
        import numpy as np

        from gpt2.engine.scoring import Span, score_spans

        spans = [np.array(ids[start : start + window + 1], np.int32) for start in range(0, len(ids) - 1, window)]

        def score():
            found = score_spans(self.backend, (Span(span, len(span) - 1) for span in spans))
            return -sum(float(one.logprobs.sum(dtype=float)) for one in found)

        return score


class Numbers:
    """A vocabulary whose pieces are numbers in words."""

    end_of_text = 0

    def decode(self, ids):
        return "".join(f" {token}" for token in ids)

    def stream(self, prompt):
        return self

    feed = decode

    def finish(self):
        return ""


def opened(folder):
    """The model directory, which may lack a vocabulary, by this library or an earlier one."""
    from gpt2 import hparams

    path = Path(folder)
    sizes = hparams.load_hparams(path / worker.HPARAMS)
    try:
        from gpt2.formats import directory
        from gpt2.formats.openai import checkpoint, checkpoint_files
    except ImportError:
        from gpt2.formats import model_dir

        return model_dir.ModelDir(path, sizes, model_dir.current_checkpoint(path))
    prefix = checkpoint_files.current_checkpoint(path)
    return directory.ModelDir(path, sizes, prefix, checkpoint.read_weights, lambda: None)


def new(folder):
    from gpt2.formats import model_dir
    from gpt2.formats.weights import nest
    from gpt2.training import initialization
    from gpt2.training.checkpoints import tensorflow_checkpoint

    hparams = model_dir.RELEASED_MODELS["124M"]
    tensorflow_checkpoint.save(Path(folder), nest(initialization.initial_weights(hparams, seed=1).items()))
    write_hparams(folder, hparams)


def export(model, folder):
    import numpy as np

    from gpt2.formats.openai import checkpoint

    directory = opened(model)
    weights = checkpoint.read_weights(directory.weights_path, directory.hparams)
    Path(folder).mkdir()
    np.savez(Path(folder, worker.WEIGHTS), **{name: weight.array() for name, weight in weights.items()})
    write_hparams(folder, directory.hparams)


def write_hparams(folder, hparams):
    text = json.dumps(vars(hparams))
    Path(folder, worker.HPARAMS).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1] in ("new", "export"):
        {"new": new, "export": export}[sys.argv[1]](*sys.argv[2:])
    else:
        worker.run(Engine)
