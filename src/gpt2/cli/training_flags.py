"""The flags of train.py: what each of `settings.Settings` means, which knows their ranges and defaults."""

from __future__ import annotations

from gpt2.cli.flags import FLAGS as GENERAL
from gpt2.cli.flags import NUMBER, WHOLE, YES_OR_NO, Flag, parse_switch
from gpt2.training.settings.settings import FINE_TUNING_RATE, NEW_MODEL_RATE, OPTIMIZERS, PRECISIONS, SCHEDULES

NAMES = ", ".join(OPTIMIZERS)

FLAGS = GENERAL | {
    "dataset": Flag(
        str,
        "a path",
        "text to train on: a file, folder or glob; .gz and .csv too, and what encode.py wrote; a run that goes on has"
        " its own, as it has what else is left out",
    ),
    "model_name": Flag(
        str, "a name", "the model to start from: a name under models_dir or the path of a model directory"
    ),
    "combine": Flag(int, WHOLE, "of no effect: documents always follow one another; old command lines have it"),
    "batch_size": Flag(int, WHOLE, "windows of n_ctx tokens computed together, on each device"),
    "learning_rate": Flag(
        float,
        NUMBER,
        f"of the optimiser; by default {FINE_TUNING_RATE:f}, from scratch {NEW_MODEL_RATE}; 0.0006 suits sgd",
    ),
    "accumulate_gradients": Flag(int, WHOLE, "average the gradients of so many batches before each update"),
    "memory_saving_gradients": Flag(
        parse_switch, YES_OR_NO, "compute each layer twice instead of keeping it: far less memory"
    ),
    "only_train_transformer_layers": Flag(parse_switch, YES_OR_NO, "leave the embeddings as they are"),
    "optimizer": Flag(str, "a name", f"{NAMES}; adafactor needs least memory beside sgd"),
    "noise": Flag(float, NUMBER, "share of the tokens read, not of those predicted, that is replaced by random ones"),
    "top_k": Flag(int, WHOLE, "of the samples written on the way: choose among the k likeliest tokens; 0 means all"),
    "top_p": Flag(float, NUMBER, "of the samples written on the way; above 0 it replaces top_k"),
    "restore_from": Flag(
        str, "text", "latest: go on with the run, or begin it; fresh: begin anew; or a checkpoint's path"
    ),
    "run_name": Flag(str, "a name", "the run's folder below checkpoint_dir and sample_dir"),
    "sample_every": Flag(int, WHOLE, "write samples after every so many updates; 0 is never"),
    "sample_length": Flag(int, WHOLE, "tokens of such a sample; by default 1023 or what the window holds"),
    "sample_num": Flag(int, WHOLE, "how many samples to write each time"),
    "save_every": Flag(int, WHOLE, "save after every so many updates; 0 leaves it to save_minutes"),
    "val_dataset": Flag(str, "a path", "text to validate on; by default val_split holds a part of dataset out"),
    "val_batch_size": Flag(int, WHOLE, "windows of text validated together"),
    "val_batch_count": Flag(
        int, WHOLE, "how many such batches, spread evenly over the text, or fewer if it is short", 1
    ),
    "val_every": Flag(int, WHOLE, "validate after every so many updates; 0 is never"),
    "stop_after": Flag(int, WHOLE, "end when the run has made so many updates in all"),
    "steps": Flag(int, WHOLE, "make so many more updates, then end"),
    "seed": Flag(int, WHOLE, "fixes all random numbers; drawn and kept with the run if not given"),
    "checkpoint_dir": Flag(str, "a folder", "folder that holds the runs' folders"),
    "sample_dir": Flag(str, "a folder", "folder for the samples of all runs"),
    "csv_start": Flag(str, "text", "put before each document of a .csv, such as <|startoftext|>"),
    "print_every": Flag(int, WHOLE, "in a log, a line after every so many updates"),
    "multi_gpu": Flag(parse_switch, YES_OR_NO, "train on all GPUs of the machine, batch_size windows on each"),
    "val_split": Flag(float, NUMBER, "share of dataset, its end, that is held out if val_every is given"),
    "patience": Flag(int, WHOLE, "end after so many validations without a better loss; 0 is off"),
    "save_minutes": Flag(float, NUMBER, "save at least this often"),
    "keep": Flag(int, WHOLE, "how many checkpoints stay; 0 keeps all"),
    "warmup_steps": Flag(int, WHOLE, "updates in which the learning rate rises to its value"),
    "lr_schedule": Flag(
        str, "a name", f"what it does then, up to the last update: {' or '.join(SCHEDULES)}, down to 0"
    ),
    "weight_decay": Flag(float, NUMBER, "decoupled decay of matrices; by default 0.01 with adamw, else 0"),
    "clip_norm": Flag(float, NUMBER, "limit of the gradients' norm; 0 is off, 1 usual"),
    "dropout": Flag(float, NUMBER, "share of activations that is zeroed; 0.1 or 0.2 helps where text is scarce"),
    "precision": Flag(
        str, "a name", f"of the matrix products, {' or '.join(PRECISIONS)}: narrow is faster where the processor has it"
    ),
    "from_scratch": Flag(
        parse_switch, YES_OR_NO, "train a new model of the sizes below, which a run that goes on keeps"
    ),
    "vocabulary": Flag(
        str,
        "a path",
        "the new model's vocabulary: a folder, or a SentencePiece .model; by default one of n_vocab is made from"
        " dataset",
    ),
    "n_vocab": Flag(int, WHOLE, "how many tokens a new vocabulary has"),
    "n_ctx": Flag(int, WHOLE, "window of a new model, tokens"),
    "n_embd": Flag(int, WHOLE, "embedding size of a new model"),
    "n_head": Flag(int, WHOLE, "attention heads of a new model"),
    "n_layer": Flag(int, WHOLE, "blocks of a new model"),
    "n_token_embd": Flag(int, WHOLE, "width of a new model's embeddings, n_embd if not given; less saves memory"),
}
