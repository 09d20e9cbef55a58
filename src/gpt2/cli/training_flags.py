"""The flags of scripts/train.py: what each of `settings.Settings` means."""

from __future__ import annotations

from gpt2.cli.flags import FLAGS as GENERAL
from gpt2.cli.flags import NUMBER, WHOLE, Flag, switch

YES_OR_NO = "true or false"
FLAGS = GENERAL | {
    "dataset": Flag(
        str, "a path", "text to train on: a file, folder or glob; .gz and .csv too, and what encode.py wrote"
    ),
    "model_name": Flag(
        str, "a name", "the model to start from: a name under models_dir or the path of a model directory"
    ),
    "combine": Flag(int, WHOLE, "of no effect: documents always follow one another; old command lines have it", 1),
    "batch_size": Flag(int, WHOLE, "windows of n_ctx tokens computed together, on each device", 1),
    "learning_rate": Flag(float, NUMBER, "of the optimiser; by default 0.00002, from scratch 0.001; 0.0006 suits sgd"),
    "accumulate_gradients": Flag(int, WHOLE, "average the gradients of so many batches before each update", 1),
    "memory_saving_gradients": Flag(
        switch, YES_OR_NO, "compute each layer twice instead of keeping it: far less memory"
    ),
    "only_train_transformer_layers": Flag(switch, YES_OR_NO, "leave the embeddings as they are"),
    "optimizer": Flag(str, "a name", "adam, adamw, sgd or adafactor, which needs least memory beside sgd"),
    "noise": Flag(float, NUMBER, "share of the tokens read, not of those predicted, that is replaced by random ones"),
    "top_k": Flag(int, WHOLE, "of the samples written on the way: choose among the k likeliest tokens; 0 means all"),
    "top_p": Flag(float, NUMBER, "of the samples written on the way; above 0 it replaces top_k"),
    "restore_from": Flag(
        str, "text", "latest: go on with the run, or begin it; fresh: begin anew; or a checkpoint's path"
    ),
    "run_name": Flag(str, "a name", "the run's folder below checkpoint_dir and sample_dir"),
    "sample_every": Flag(int, WHOLE, "write samples after every so many updates; 0 is never", 0),
    "sample_length": Flag(int, WHOLE, "tokens of such a sample; by default 1023 or what the window holds", 0),
    "sample_num": Flag(int, WHOLE, "how many samples to write each time", 1),
    "save_every": Flag(int, WHOLE, "save after every so many updates; 0 leaves it to save_minutes", 0),
    "val_dataset": Flag(str, "a path", "text to validate on; by default val_split holds a part of dataset out"),
    "val_batch_size": Flag(int, WHOLE, "windows of text validated together", 1),
    "val_batch_count": Flag(
        int, WHOLE, "how many such batches, spread evenly over the text, or fewer if it is short", 1
    ),
    "val_every": Flag(int, WHOLE, "validate after every so many updates; 0 is never", 0),
    "stop_after": Flag(int, WHOLE, "end when the run has made so many updates in all", 0),
    "steps": Flag(int, WHOLE, "make so many more updates, then end", 0),
    "seed": Flag(int, WHOLE, "fixes all random numbers; drawn and kept with the run if not given", 0),
    "checkpoint_dir": Flag(str, "a folder", "folder that holds the runs' folders"),
    "sample_dir": Flag(str, "a folder", "folder for the samples of all runs"),
    "csv_start": Flag(str, "text", "put before each document of a .csv, such as <|startoftext|>"),
    "print_every": Flag(int, WHOLE, "in a log, a line after every so many updates", 1),
    "multi_gpu": Flag(switch, YES_OR_NO, "train on all GPUs of the machine, batch_size windows on each"),
    "val_split": Flag(float, NUMBER, "share of dataset, its end, that is held out if val_every is given"),
    "patience": Flag(int, WHOLE, "end after so many validations without a better loss; 0 is off", 0),
    "save_minutes": Flag(float, NUMBER, "save at least this often"),
    "keep": Flag(int, WHOLE, "how many checkpoints stay", 1),
    "warmup_steps": Flag(int, WHOLE, "updates in which the learning rate rises to its value", 0),
    "lr_schedule": Flag(
        str, "a name", "what it does then, up to the last update: constant, linear or cosine, down to 0"
    ),
    "weight_decay": Flag(float, NUMBER, "decoupled decay of matrices; by default 0.01 with adamw, else 0"),
    "clip_norm": Flag(float, NUMBER, "limit of the gradients' norm; 0 is off, 1 usual"),
    "dropout": Flag(float, NUMBER, "share of activations that is zeroed; 0.1 or 0.2 helps where text is scarce"),
    "precision": Flag(str, "a name", "float32, or bfloat16 for the products: faster where the processor has it"),
    "from_scratch": Flag(switch, YES_OR_NO, "train a new model of the sizes below, which a run that goes on keeps"),
    "vocabulary": Flag(str, "a folder", "the new model's vocabulary; by default one of n_vocab is made from dataset"),
    "n_vocab": Flag(int, WHOLE, "how many tokens a new vocabulary has", 257),
    "n_ctx": Flag(int, WHOLE, "window of a new model, tokens", 1),
    "n_embd": Flag(int, WHOLE, "embedding size of a new model", 1),
    "n_head": Flag(int, WHOLE, "attention heads of a new model", 1),
    "n_layer": Flag(int, WHOLE, "blocks of a new model", 1),
}
