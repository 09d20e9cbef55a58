"""A bot or server on OpenAI's modules: one graph, one session, and one tensor, which is run for each message.

It uses only names of TensorFlow 1.
"""

import json
import os
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

import encoder
import model
import numpy as np
import sample
import tensorflow as tf


class Generator:
    def __init__(self, model_name, models_dir, length, **settings):
        self.enc = encoder.get_encoder(model_name, models_dir)
        hparams = model.default_hparams()
        with open(os.path.join(models_dir, model_name, "hparams.json")) as file:
            hparams.override_from_dict(json.load(file))
        if length > hparams.n_ctx:
            raise ValueError(f"Can't get samples longer than window size: {hparams.n_ctx}")
        config = tf.ConfigProto()
        config.gpu_options.allow_growth = True
        self.sess = tf.Session(config=config, graph=tf.Graph())
        self.sess.__enter__()
        self.context = tf.placeholder(tf.int32, [1, None])
        np.random.seed(7)
        tf.set_random_seed(7)
        self.output = sample.sample_sequence(
            hparams=hparams, length=length, context=self.context, batch_size=1, **settings
        )
        saver = tf.train.Saver()
        saver.restore(self.sess, tf.train.latest_checkpoint(os.path.join(models_dir, model_name)))

    def __call__(self, text):
        tokens = self.enc.encode(text)
        out = self.sess.run(self.output, feed_dict={self.context: [tokens for _ in range(1)]})[:, len(tokens) :]
        return [self.enc.decode(ids) for ids in out][0]


def serve(generator):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(generator(text).encode())

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}/"


if __name__ == "__main__":
    model_name, models_dir, prompts = sys.argv[1], sys.argv[2], json.load(sys.stdin)
    url = serve(Generator(model_name, models_dir, length=40, temperature=1, top_k=1, top_p=1))
    answers = [urllib.request.urlopen(url, prompt.encode()).read().decode() for prompt in prompts]
    json.dump(answers, sys.stdout)
