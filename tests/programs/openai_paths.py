"""Programs that import OpenAI's modules by other paths, and load models from other folders."""

import json
import os
import sys

import asks_for_tensorflow_1
import tensorflow as tf
from generator.gpt2.src import encoder as generator_encoder
from generator.gpt2.src import sample

from src import model

os.chdir("src")
sys.path.insert(0, ".")
import encoder

texts = [encoder.get_encoder("run1", "../checkpoint"), encoder.get_encoder("tiny", models_dir="../models")]
os.chdir("..")
texts += [generator_encoder.get_encoder("checkpoint/run1"), encoder.get_encoder("tiny")]
ids = [enc.encode("the cat") for enc in texts]
enc = texts[0]
assert all(enc.decoder[enc.encoder[piece]] == piece for piece in enc.encoder)
assert all(enc.byte_decoder[enc.byte_encoder[byte]] == byte for byte in range(256))
assert enc.decode(ids[0]) == "the cat" and enc.bpe_ranks[("Ġ", "t")] < enc.bpe_ranks[("Ġt", "h")]
hparams = model.default_hparams()
sizes = [hparams.n_ctx, hparams.n_embd, hparams.n_head, hparams.n_layer, hparams.n_vocab]
messages = []
for name in ("placeholder", "summary.merge_all", "summary.nothing"):
    try:
        eval(f"tf.{name}")
    except AttributeError as error:
        messages.append(str(error))
results = {
    "ids": ids,
    "sizes": sizes,
    "messages": messages,
    "library": asks_for_tensorflow_1.has_session(),
    "program": hasattr(tf, "Session"),
}
tf.compat.v1.disable_eager_execution()  # as the error message advises; no `with` block is needed
with open("models/tiny/hparams.json") as file:
    hparams.override_from_dict(json.load(file))
sess = tf.InteractiveSession()
context = tf.placeholder(tf.int32, [1, None])
output = sample.sample_sequence(hparams=hparams, length=5, context=context, batch_size=1, temperature=0)
other = tf.Session(config=tf.ConfigProto(log_device_placement=False))
for each in (sess, other):
    tf.train.Saver().restore(each, tf.train.latest_checkpoint("models/tiny"))
results["generated"] = [output.eval({context: ids[:1]}).tolist(), other.run(output, {context: ids[:1]}).tolist()]
results["rest"] = [hasattr(tf, name) for name in ("contrib", "__wrapped__")] + [callable(sample.top_k_logits)]
json.dump(results, sys.stdout)
