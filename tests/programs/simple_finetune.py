"""A script that passes every parameter of finetune, with a model in any folder, and resumes the run."""

import json
import os
import sys

import gpt_2_simple as gpt2

sess = gpt2.start_tf_sess()
parameters = dict(
    dataset="text.txt",
    steps=2,
    model_name="",
    model_dir=os.path.join(os.getcwd(), "models", "124M"),
    combine=50000,
    batch_size=1,
    learning_rate=0.01,
    accumulate_gradients=2,
    restore_from="fresh",
    run_name="authors/one",
    checkpoint_dir="checkpoint",
    sample_every=2,
    sample_length=8,
    sample_num=1,
    multi_gpu=False,
    save_every=10,
    print_every=1,
    max_checkpoints=1,
    use_memory_saving_gradients=False,
    only_train_transformer_layers=False,
    optimizer="adam",
    overwrite=False,
)
gpt2.finetune(sess, **parameters)
first = gpt2.generate(sess, run_name="authors/one", return_as_list=True, length=60, temperature=1.0, seed=1)
gpt2.finetune(sess, **{**parameters, "restore_from": "latest", "model_dir": "models", "model_name": "124M"}, reuse=True)
try:
    gpt2.finetune(sess, **{**parameters, "restore_from": "latest", "model_name": "wider", "model_dir": "models"})
except ValueError as error:
    error_message = str(error)
gpt2.tf.compat.v1.reset_default_graph()
gpt2.tf.reset_default_graph()
sess = gpt2.reset_session(sess)
gpt2.load_gpt2(sess, run_name="authors/one")
second = gpt2.generate(sess, run_name="authors/one", return_as_list=True, length=60, temperature=1.0, seed=1)
files = [
    os.path.exists(f"{folder}/authors/one/{name}")
    for folder, name in (("checkpoint", "counter"), ("samples", "samples-2"))
]
print(json.dumps({"texts": [first, second], "files": files, "error": error_message}), file=sys.stderr)
