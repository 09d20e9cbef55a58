"""Programs that use more than the functions: names of the star import, and their own graph in the session.

One line is new: the old package disabled eager execution itself.
"""

from gpt_2_simple import *
from gpt_2_simple.src import encoder as an_encoder
from gpt_2_simple.src import sample as a_sample

tf.compat.v1.disable_eager_execution()

sess = start_tf_sess()
load_gpt2(sess, model_name="124M")
first = generate(sess, prefix="the cat", length=5, top_k=1, return_as_list=True)[0]
folder = os.path.join("models", "124M")
enc = encoder.get_encoder(folder)
hparams = model.default_hparams()
with open(os.path.join(folder, "hparams.json")) as file:
    hparams.override_from_dict(json.load(file))
context = tf.compat.v1.placeholder(tf.int32, [1, None])
np.random.seed(1)
tf.compat.v1.set_random_seed(1)
output = sample.sample_sequence(hparams=hparams, length=5, context=context, batch_size=1, temperature=0.7, top_k=1)
saver = tf.compat.v1.train.Saver()
saver.restore(sess, tf.train.latest_checkpoint(folder))
tokens = enc.encode("the cat")
out = sess.run(output, feed_dict={context: [tokens]})
assert a_sample is sample and an_encoder is encoder and callable(tqdm) and re and datetime.now()
a_sample.sample_sequence = None  # the package's own functions do not use it
again = generate(sess, prefix="the cat", length=5, top_k=1, return_as_list=True)[0]
print(json.dumps({"texts": [first, enc.decode(out[0]), again]}), file=sys.stderr)
