"""A widely copied web server: it reloads the model every eighth request, because the old package leaked memory."""

import gc
import json
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import gpt_2_simple as gpt2
import tensorflow as tf

sess = gpt2.start_tf_sess(threads=1)
gpt2.load_gpt2(sess)
generate_count = 0
lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        global generate_count, sess
        params = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with lock:
            text = gpt2.generate(
                sess,
                length=int(params.get("length", "1023")),
                temperature=float(params.get("temperature", "0.7")),
                top_k=int(params.get("top_k", "0")),
                top_p=float(params.get("top_p", "0")),
                prefix=params.get("prefix", "")[:500],
                truncate=params.get("truncate", None),
                include_prefix=str(params.get("include_prefix", True)).lower() == "true",
                return_as_list=True,
            )[0]
            generate_count += 1
            if generate_count == 8:
                # Reload model to prevent Graph/Session from going OOM
                tf.reset_default_graph()
                sess.close()
                sess = gpt2.start_tf_sess(threads=1)
                gpt2.load_gpt2(sess)
                generate_count = 0
        gc.collect()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"text": text}).encode())

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
answers = []
for _ in range(9):
    form = {"prefix": "the cat", "length": "5", "temperature": "0.7", "top_k": "1"}
    url = f"http://127.0.0.1:{server.server_port}/"
    answers.append(json.load(urllib.request.urlopen(url, json.dumps(form).encode()))["text"])
print(
    json.dumps({"answers": answers, "graph": tf.get_default_graph() is tf.compat.v1.get_default_graph()}),
    file=sys.stderr,
)
