"""OpenVINO as an engine of benchmarks/decoding.py: what `optimum-cli export openvino` writes, in the plain runtime.

float32 and bfloat16 are the inference's precision, weights and cache included; int8 is that of the weights, with
OpenVINO's own choice for all else. The logits are those of the last position alone, as OpenVINO's GenAI has them too.
"""

import os
import subprocess
import sys
import tempfile

import numpy as np
import transformers_pytorch
import worker

OWN_PRECISION = {"float32": "f32", "bfloat16": "bf16"}


def convert(weights, folder, precision):
    with tempfile.TemporaryDirectory() as temporary:
        transformers_pytorch.convert(weights, temporary, "float32")
        form = "int8" if precision == "int8" else "fp32"
        task = ["--task", "text-generation-with-past", "--weight-format", form]
        program = os.path.join(os.path.dirname(sys.executable), "optimum-cli")
        command = [program, "export", "openvino", "--model", temporary, *task, folder]
        subprocess.run(command, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})


class Engine:
    def __init__(self, folder, precision, threads):
        import openvino

        core = openvino.Core()
        model = core.read_model(os.path.join(folder, "openvino_model.xml"))
        keep_last(model)
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
        if precision in OWN_PRECISION:
            settings["INFERENCE_PRECISION_HINT"] = settings["KV_CACHE_PRECISION"] = OWN_PRECISION[precision]
        self.request = core.compile_model(model, "CPU", settings).create_infer_request()
        self.names = [one.get_any_name() for one in model.inputs]

    def step(self, ids, start):
        """ids [B, T] at the positions from `start` on -> the likeliest next ones [B, 1]."""
        rows, count = ids.shape
        positions = np.tile(np.arange(start, start + count), (rows, 1))
        return self.infer(ids, np.ones((rows, start + count), np.int64), positions)

    def infer(self, ids, mask, positions):
        """ids [B, T], mask [B, those before and T], positions [B, T] -> the likeliest next ones [B, 1]."""
        rows = np.arange(len(ids), dtype=np.int32)
        given = {"input_ids": ids, "attention_mask": mask, "position_ids": positions, "beam_idx": rows}
        self.request.infer({name: given[name] for name in self.names}, share_inputs=True)
        return self.request.get_tensor("logits").data[:, -1].argmax(-1)[:, None]

    def begin(self, prompts):
        self.request.reset_state()
        return self.step(np.array(prompts, np.int64), 0)

    def decoding(self, tokens, batch):
        ids = self.step(self.begin([worker.PROMPT] * batch), 1)

        def steps(ids=ids):
            for i in range(tokens):
                ids = self.step(ids, 2 + i)

        return steps

    def bulk(self, prompts, lengths, batch):
        """Prompts padded on the left, in batches of so many rows, the shorter texts cut."""

        def write():
            for some, wanted in worker.by_length(prompts, lengths, batch):
                longest = max(map(len, some))
                ids = np.array([[0] * (longest - len(prompt)) + prompt for prompt in some], np.int64)
                mask = np.array([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in some], np.int64)
                positions = np.maximum(0, mask.cumsum(-1) - 1)
                self.request.reset_state()
                for _ in range(max(wanted)):
                    ids = self.infer(ids, mask, positions)
                    mask = np.concatenate([mask, np.ones_like(ids)], 1)
                    positions = positions[:, -1:] + 1
            return sum(lengths)

        return write

    def next_token(self, ids):
        return self.begin([ids])[0, 0]


def keep_last(model):
    """Of the positions that go into the product that makes logits."""
    from openvino import opset13 as ops

    product = model.output("logits").get_node().input_value(0).get_node()
    hidden = product.input_value(0)
    last = ops.slice(hidden, *(np.array([number]) for number in (-1, np.iinfo(np.int64).max, 1, 1)))
    product.input(0).replace_source_output(last.output(0))
    model.validate_nodes_and_infer_types()


if __name__ == "__main__":
    worker.run(Engine, convert)
