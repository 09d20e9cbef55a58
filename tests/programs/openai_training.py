"""The forks' train.py, and programs that export a model. One line is new: TensorFlow's import.

Everything is in the default graph of an interactive session.
"""

import json
import os
import sys

import encoder
import model
import numpy as np
import sample
import tensorflow.compat.v1 as tf

tf.disable_v2_behavior()

FOLDER, OUT = sys.argv[1:]
hparams = model.default_hparams()
with open(os.path.join(FOLDER, "hparams.json")) as file:
    hparams.override_from_dict(json.load(file))
enc = encoder.get_encoder(FOLDER)
data = np.array(enc.encode("the cat sat on the mat and the dog sat on the log\n" * 20))

sess = tf.InteractiveSession()
context = tf.placeholder(tf.int32, [2, None])
output = model.model(hparams=hparams, X=context)
loss = tf.reduce_mean(
    tf.nn.sparse_softmax_cross_entropy_with_logits(labels=context[:, 1:], logits=output["logits"][:, :-1])
)
samples = sample.sample_sequence(hparams=hparams, length=20, context=context, batch_size=2, temperature=1.0, top_k=40)
train_vars = [variable for variable in tf.trainable_variables() if "model" in variable.name]
optimizer = tf.train.AdamOptimizer(learning_rate=0.01)
sums = {variable: tf.Variable(tf.zeros_like(variable.initialized_value()), trainable=False) for variable in train_vars}
reset = tf.group(*[sums[variable].assign(tf.zeros_like(variable)) for variable in train_vars])
gradients = tf.gradients(loss, train_vars)
with tf.control_dependencies([sums[variable].assign_add(g) for variable, g in zip(train_vars, gradients)]):
    accumulate = tf.identity(loss)
step = optimizer.apply_gradients([(sums[variable] / 2, variable) for variable in train_vars])
tf.summary.scalar("loss", loss)
summaries = tf.summary.merge_all()
saver = tf.train.Saver(var_list=train_vars, max_to_keep=5, keep_checkpoint_every_n_hours=2)
sess.run(tf.global_variables_initializer())
fresh = float(loss.eval({context: [data[:24]] * 2}))
saver.restore(sess, tf.train.latest_checkpoint(FOLDER))
losses = []
for position in range(12):
    sess.run(reset)
    for offset in (0, 5):
        batch = [data[position + offset : position + offset + 24], data[position + offset + 7 : position + offset + 31]]
        value, _ = sess.run([accumulate, summaries], {context: batch})
    sess.run(step)
    losses.append(float(value))
sampled = sess.run(samples, {context: [data[:1]] * 2})
saver.save(sess, os.path.join(OUT, "model"), global_step=12)

# Export for a server that does not have these modules.
greedy = sample.sample_sequence(hparams=hparams, length=5, context=context, top_k=1)
expected = sess.run(greedy, {context: [[1, 2, 3], [4, 5, 6]]})
tf.saved_model.simple_save(sess, os.path.join(OUT, "served"), {"context": context}, {"sample": greedy})
frozen = tf.graph_util.convert_variables_to_constants(sess, sess.graph.as_graph_def(), [greedy.op.name])
with tf.Session(graph=tf.Graph()) as other:
    tensors = tf.import_graph_def(frozen, return_elements=[context.name, greedy.name])
    assert (other.run(tensors[1], {tensors[0]: [[1, 2, 3], [4, 5, 6]]}) == expected).all()
json.dump({"fresh": fresh, "losses": losses, "shape": list(sampled.shape), "served": expected.tolist()}, sys.stdout)
