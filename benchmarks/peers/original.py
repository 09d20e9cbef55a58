"""OpenAI's own code under TensorFlow 1.15 as an engine of benchmarks/decoding.py; its src/ has to be on PYTHONPATH.

It reads the model directory itself. A whole run of its `sample_sequence` is timed: with a prompt of one id, one pass
through the model per new token, its top-k and top-p filters and its random draw included. Of a longer prompt it
computes the logits of every position.
"""

import json
import os

import worker


class Engine:
    def __init__(self, folder, precision, threads):
        import model
        import sample
        import tensorflow as tf

        hparams = model.default_hparams()
        with open(os.path.join(folder, worker.HPARAMS)) as file:
            hparams.override_from_dict(json.load(file))
        self.context = tf.placeholder(tf.int32, [1, None])
        self.length = tf.placeholder(tf.int32, [])  # one graph for every length
        self.output = sample.sample_sequence(
            hparams=hparams, length=self.length, context=self.context, batch_size=1, top_k=1
        )
        self.session = tf.Session(
            config=tf.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
        )
        tf.train.Saver().restore(self.session, tf.train.latest_checkpoint(folder))

    def generate(self, ids, tokens):
        return self.session.run(self.output, {self.context: [ids], self.length: tokens})[0, len(ids) :]

    def decoding(self, tokens, batch):
        assert batch == 1, "the graph is built for one text"
        return lambda: self.generate(worker.PROMPT, tokens)

    def next_token(self, ids):
        return self.generate(ids, 1)[0]


if __name__ == "__main__":
    worker.run(Engine)
