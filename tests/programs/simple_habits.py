"""Habits of scripts and bots on gpt-2-simple: loops, recreated sessions, several models, unusual number types."""

import json
import os
import sys
import time
from unittest import mock

import gpt_2_simple
import gpt_2_simple as gpt2
import numpy as np

results = {}
sess = gpt2.start_tf_sess()
gpt2.load_gpt2(sess, run_name="run1")


def generate(**options):
    return gpt2.generate(sess, **{"return_as_list": True, "length": 5, "top_k": 1, **options})


# Each text is the next prefix, until a word appears.
prefix, rounds = "the cat", 0
while "dog" not in prefix and rounds < 3:
    single_text = generate(prefix=prefix)[0]
    new, prefix, rounds = single_text[len(prefix) :], single_text, rounds + 1
    assert new
results["loop"] = prefix

# Load again, which raised an error in the old package; drop the session, close it twice, test whether it is true.
try:
    gpt2.load_gpt2(sess, run_name="run1")
except ValueError:
    gpt2.reset_session(sess)
    gpt2.load_gpt2(sess, run_name="run1")
first = generate(prefix="the cat")
gpt2.reset_session(sess)  # the result is dropped
gpt2.load_gpt2(sess, run_name="run1")
results["same"] = [generate(prefix="the cat") == first]
sess = gpt2.reset_session(sess)
gpt2.load_gpt2(sess)
results["same"].append(generate(prefix="the cat") == first)
sess.close()
sess.close()
if not sess:
    raise SystemExit("a session must be true")
sess = None
if not sess:
    sess = gpt2.start_tf_sess()
gpt2.load_gpt2(sess, checkpoint_dir=os.path.abspath("checkpoint"), run_name="run1", model_name=None)
results["same"].append(generate(prefix="the cat", run_name="run1") == first)

# Runs and models in turn.
for options in (
    {"run_name": "authors/one"},
    {"model_name": os.path.abspath("models/124M"), "model_dir": ""},
    {"run_name": "run1", "model_name": "124M"},
    {"model_name": "124M", "model_dir": os.path.abspath("models")},
):
    sess = gpt2.reset_session(sess)
    gpt2.load_gpt2(sess, **options)
    results["same"].append(
        gpt2.generate(sess, return_as_list=True, prefix="the cat", length=5, top_k=1, **options) == first
    )

# Numbers from NumPy and from forms.
texts = [generate(temperature=value, prefix="the cat") for value in np.arange(0.5, 1.0, 0.25)]
texts.append(generate(length=np.floor(5.7), prefix="the cat", nsamples=int("1"), temperature=float("0.7")))
results["same"] += [text == first for text in texts]

# Both filters, a seed from the clock, all texts in one batch, an empty truncate, and printed output.
gpt2.generate(sess, length=3, top_k=40, top_p=0.9, seed=int(time.time()), nsamples=5, batch_size=5, truncate="")

with mock.patch("gpt_2_simple.generate", return_value=["mocked"]):
    results["mocked"] = gpt_2_simple.generate(sess, return_as_list=True)
print(json.dumps(results), file=sys.stderr)
