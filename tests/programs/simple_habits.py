"""As scripts and bots on gpt-2-simple: loops, sessions thrown away and made again, several models, odd numbers."""

import json
import os
import sys
import time
from unittest import mock

import gpt_2_simple
import gpt_2_simple as gpt2
import numpy as np

found = {}
sess = gpt2.start_tf_sess()
gpt2.load_gpt2(sess, run_name="run1")


def written(**given):
    return gpt2.generate(sess, **{"return_as_list": True, "length": 5, "top_k": 1, **given})


# What was written is the next prefix, until a text appears.
prefix, rounds = "the cat", 0
while "dog" not in prefix and rounds < 3:
    single_text = written(prefix=prefix)[0]
    new, prefix, rounds = single_text[len(prefix) :], single_text, rounds + 1
    assert new
found["loop"] = prefix

# Loaded again where the old package could not, the session thrown away, closed twice, or asked whether it is there.
try:
    gpt2.load_gpt2(sess, run_name="run1")
except ValueError:
    gpt2.reset_session(sess)
    gpt2.load_gpt2(sess, run_name="run1")
first = written(prefix="the cat")
gpt2.reset_session(sess)  # its result is dropped
gpt2.load_gpt2(sess, run_name="run1")
found["same"] = [written(prefix="the cat") == first]
sess = gpt2.reset_session(sess)
gpt2.load_gpt2(sess)
found["same"].append(written(prefix="the cat") == first)
sess.close()
sess.close()
if not sess:
    raise SystemExit("a session is true")
sess = None
if not sess:
    sess = gpt2.start_tf_sess()
gpt2.load_gpt2(sess, checkpoint_dir=os.path.abspath("checkpoint"), run_name="run1", model_name=None)
found["same"].append(written(prefix="the cat", run_name="run1") == first)

# Runs and models by turns.
for given in (
    {"run_name": "authors/one"},
    {"model_name": os.path.abspath("models/124M"), "model_dir": ""},
    {"run_name": "run1", "model_name": "124M"},
    {"model_name": "124M", "model_dir": os.path.abspath("models")},
):
    sess = gpt2.reset_session(sess)
    gpt2.load_gpt2(sess, **given)
    found["same"].append(
        gpt2.generate(sess, return_as_list=True, prefix="the cat", length=5, top_k=1, **given) == first
    )

# Numbers as NumPy and forms have them.
texts = [written(temperature=value, prefix="the cat") for value in np.arange(0.5, 1.0, 0.25)]
texts.append(written(length=np.floor(5.7), prefix="the cat", nsamples=int("1"), temperature=float("0.7")))
found["same"] += [text == first for text in texts]

# Both filters; a seed from the clock; as many at once as there are; nothing to end at; printed.
gpt2.generate(sess, length=3, top_k=40, top_p=0.9, seed=int(time.time()), nsamples=5, batch_size=5, truncate="")

with mock.patch("gpt_2_simple.generate", return_value=["mocked"]):
    found["mocked"] = gpt_2_simple.generate(sess, return_as_list=True)
print(json.dumps(found), file=sys.stderr)
