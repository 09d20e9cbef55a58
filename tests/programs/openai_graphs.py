"""As the other programs on OpenAI's modules that need no change: several graphs, a generator that holds a session, own
loops over `model.model`, fixed lengths, an empty context, unconditional samples."""

import json
import os
import sys

import encoder
import model
import numpy as np
import sample
import tensorflow as tf

MODELS = sys.argv[1]


def hparams_of(name):
    hparams = model.default_hparams()
    with open(os.path.join(MODELS, name, "hparams.json")) as file:
        hparams.override_from_dict(json.load(file))
    return hparams


def restored(sess, name):
    tf.train.Saver().restore(sess, tf.train.latest_checkpoint(os.path.join(MODELS, name)))


def writers():
    """A generator that yields from inside the session."""
    hparams = hparams_of("small")
    with tf.Session(graph=tf.Graph()) as sess:
        context = tf.placeholder(tf.int32, [2, None])
        output = sample.sample_sequence(
            hparams=hparams, length=hparams.n_ctx // 2, context=context, batch_size=2, temperature=0.7, top_k=1
        )
        restored(sess, "small")
        yield sess, context, output, encoder.get_encoder("small", MODELS)


def half_a_window(prompt):
    for sess, context, output, enc in writers():
        tokens = enc.encode(prompt)
        out = sess.run(output, feed_dict={context: 2 * [tokens]})[:, len(tokens) :]
        return out.tolist()


def two_models(prompt_ids):
    """Each in a graph and a session of its own, in turns; then another one in the first one's place."""
    texts, sessions = [], {}
    for name in ("small", "other", "small"):
        if name in sessions:
            sessions.pop(name)[0].close()
        graph = tf.Graph()
        with graph.as_default():
            sess = tf.Session(graph=graph)
            context = tf.placeholder(tf.int32, [1, None])
            output = sample.sample_sequence(hparams=hparams_of(name), length=20, context=context, batch_size=1, top_k=1)
            restored(sess, name)
        sessions[name] = sess, context, output
        texts.append({name: s.run(o, {c: [prompt_ids]})[0].tolist() for name, (s, c, o) in sessions.items()})
    return texts


def own_loops(ids):
    """One token at a time with the past; scores of all of them at once; two models mixed in one graph."""
    hparams = hparams_of("small")
    with tf.Session(graph=tf.Graph()) as sess:
        X = tf.placeholder(tf.int32, [1, None])
        past = tf.placeholder(tf.float32, model.past_shape(hparams=hparams, batch_size=1))
        first = model.model(hparams=hparams, X=X)
        step = model.model(hparams, X, past=past, reuse=True)
        other = model.model(hparams=hparams, X=X, scope="other")
        step["present"].set_shape(model.past_shape(hparams=hparams, batch_size=1))
        names = {variable.op.name: variable for variable in tf.global_variables() if variable.name.startswith("other")}
        mine = [variable for variable in tf.global_variables() if not variable.name.startswith("other")]
        tf.train.Saver(mine).restore(sess, tf.train.latest_checkpoint(os.path.join(MODELS, "small")))
        renamed = {name.replace("other", "model", 1): variable for name, variable in names.items()}
        tf.train.Saver(renamed).restore(sess, tf.train.latest_checkpoint(os.path.join(MODELS, "other")))
        logits, seen = sess.run([first["logits"], first["present"]], {X: [ids]})
        mixed = sess.run((first["logits"] + other["logits"]) / 2, {X: [ids]})
        written = []
        for _ in range(5):
            written.append(int(np.argmax(logits[0, -1, : hparams.n_vocab])))
            logits, new = sess.run([step["logits"], step["present"]], {X: [written[-1:]], past: seen})
            seen = np.concatenate([seen, new], axis=-2)
        probs = sess.run(tf.nn.softmax(mixed[0]))
    return {"written": written, "sums": probs.sum(axis=-1).tolist(), "shape": list(seen.shape)}


def lengths():
    """1023 and 60 new tokens of a model whose window is 32; nothing as the context; `[:, 1:]` of samples from nothing;
    two in a batch, filtered."""
    hparams, enc = hparams_of("tiny"), encoder.get_encoder("tiny", MODELS)
    end, found = enc.encoder["<|endoftext|>"], {}
    with tf.Session(graph=tf.Graph()) as sess:
        context = tf.placeholder(tf.int32, [1, None])
        long = sample.sample_sequence(hparams=hparams, length=1023, context=context, batch_size=1, top_k=1)
        short = sample.sample_sequence(hparams=hparams, length=20, context=context, batch_size=1, top_k=1)
        nothing = sample.sample_sequence(hparams=hparams, length=60, start_token=end, batch_size=2, top_k=40)[:, 1:]
        filtered = sample.sample_sequence(
            hparams=hparams, length=20, start_token=end, batch_size=2, temperature=0.8, top_k=40, top_p=0.9
        )
        restored(sess, "tiny")
        found["long"] = sess.run(long, {context: [enc.encode("the cat")]})[0].tolist()
        found["empty"] = sess.run(short, {context: [[]]})[0].tolist()
        found["from the end of a text"] = sess.run(short, {context: [[end]]})[0].tolist()
        found["shapes"] = [list(sess.run(tensor).shape) for tensor in (nothing, filtered)]
        found["again"] = bool((sess.run(filtered) == sess.run(filtered)).all())
    return found


if __name__ == "__main__":
    given = json.load(sys.stdin)
    found = {
        "half a window": half_a_window(given["prompt"]),
        "two models": two_models(given["ids"]),
        "own loops": own_loops(given["ids"]),
        "lengths": lengths(),
    }
    json.dump(found, sys.stdout)
