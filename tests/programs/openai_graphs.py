"""Further uses of OpenAI's modules in programs that need no change.

Several graphs, a generator that holds a session, own loops over `model.model`, fixed lengths, an empty context, and
unconditional samples.
"""

import json
import os
import sys

import encoder
import model
import numpy as np
import sample
import tensorflow as tf

MODELS = sys.argv[1]


def load_hparams(name):
    hparams = model.default_hparams()
    with open(os.path.join(MODELS, name, "hparams.json")) as file:
        hparams.override_from_dict(json.load(file))
    return hparams


def restore(sess, name):
    tf.train.Saver().restore(sess, tf.train.latest_checkpoint(os.path.join(MODELS, name)))


def open_samplers():
    """Yield a session with its tensors and encoder, and keep the session open meanwhile."""
    hparams = load_hparams("small")
    with tf.Session(graph=tf.Graph()) as sess:
        context = tf.placeholder(tf.int32, [2, None])
        output = sample.sample_sequence(
            hparams=hparams, length=hparams.n_ctx // 2, context=context, batch_size=2, temperature=0.7, top_k=1
        )
        restore(sess, "small")
        yield sess, context, output, encoder.get_encoder("small", MODELS)


def half_a_window(prompt):
    for sess, context, output, enc in open_samplers():
        tokens = enc.encode(prompt)
        out = sess.run(output, feed_dict={context: 2 * [tokens]})[:, len(tokens) :]
        return out.tolist()


def two_models(prompt_ids):
    """Use two models in turn, each in its own graph and session, then replace the first one."""
    texts, sessions = [], {}
    for name in ("small", "other", "small"):
        if name in sessions:
            sessions.pop(name)[0].close()
        graph = tf.Graph()
        with graph.as_default():
            sess = tf.Session(graph=graph)
            context = tf.placeholder(tf.int32, [1, None])
            output = sample.sample_sequence(
                hparams=load_hparams(name), length=20, context=context, batch_size=1, top_k=1
            )
            restore(sess, name)
        sessions[name] = sess, context, output
        texts.append({name: s.run(o, {c: [prompt_ids]})[0].tolist() for name, (s, c, o) in sessions.items()})
    return texts


def own_loops(ids):
    """Decode token by token with the past, score all tokens at once, and mix two models in one graph."""
    hparams = load_hparams("small")
    with tf.Session(graph=tf.Graph()) as sess:
        X = tf.placeholder(tf.int32, [1, None])
        past = tf.placeholder(tf.float32, model.past_shape(hparams=hparams, batch_size=1))
        first = model.model(hparams=hparams, X=X)
        step = model.model(hparams, X, past=past, reuse=True)
        other = model.model(hparams=hparams, X=X, scope="other")
        step["present"].set_shape(model.past_shape(hparams=hparams, batch_size=1))
        names = {variable.op.name: variable for variable in tf.global_variables() if variable.name.startswith("other")}
        small_variables = [variable for variable in tf.global_variables() if not variable.name.startswith("other")]
        tf.train.Saver(small_variables).restore(sess, tf.train.latest_checkpoint(os.path.join(MODELS, "small")))
        renamed = {name.replace("other", "model", 1): variable for name, variable in names.items()}
        tf.train.Saver(renamed).restore(sess, tf.train.latest_checkpoint(os.path.join(MODELS, "other")))
        logits, present = sess.run([first["logits"], first["present"]], {X: [ids]})
        mixed = sess.run((first["logits"] + other["logits"]) / 2, {X: [ids]})
        generated = []
        for _ in range(5):
            generated.append(int(np.argmax(logits[0, -1, : hparams.n_vocab])))
            logits, new = sess.run([step["logits"], step["present"]], {X: [generated[-1:]], past: present})
            present = np.concatenate([present, new], axis=-2)
        probs = sess.run(tf.nn.softmax(mixed[0]))
    return {"generated": generated, "sums": probs.sum(axis=-1).tolist(), "shape": list(present.shape)}


def lengths():
    """Sample beyond a window of 32 tokens, from an empty context, from the start token alone, and with filters."""
    hparams, enc = load_hparams("tiny"), encoder.get_encoder("tiny", MODELS)
    end_of_text = enc.encoder["<|endoftext|>"]
    results = {}
    with tf.Session(graph=tf.Graph()) as sess:
        context = tf.placeholder(tf.int32, [1, None])
        long = sample.sample_sequence(hparams=hparams, length=1023, context=context, batch_size=1, top_k=1)
        short = sample.sample_sequence(hparams=hparams, length=20, context=context, batch_size=1, top_k=1)
        unconditional = sample.sample_sequence(
            hparams=hparams, length=60, start_token=end_of_text, batch_size=2, top_k=40
        )[:, 1:]
        filtered = sample.sample_sequence(
            hparams=hparams, length=20, start_token=end_of_text, batch_size=2, temperature=0.8, top_k=40, top_p=0.9
        )
        restore(sess, "tiny")
        results["long"] = sess.run(long, {context: [enc.encode("the cat")]})[0].tolist()
        results["empty"] = sess.run(short, {context: [[]]})[0].tolist()
        results["end of text"] = sess.run(short, {context: [[end_of_text]]})[0].tolist()
        results["shapes"] = [list(sess.run(tensor).shape) for tensor in (unconditional, filtered)]
        results["again"] = bool((sess.run(filtered) == sess.run(filtered)).all())
    return results


if __name__ == "__main__":
    request = json.load(sys.stdin)
    results = {
        "half a window": half_a_window(request["prompt"]),
        "two models": two_models(request["ids"]),
        "own loops": own_loops(request["ids"]),
        "lengths": lengths(),
    }
    json.dump(results, sys.stdout)
