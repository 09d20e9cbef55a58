"""The sizes of a model, and reading them from hparams.json."""

import json

import pytest

from gpt2.errors import GPT2Error
from gpt2.formats.model_dir import RELEASED_MODELS
from gpt2.hparams import HParams, load_hparams


def test_the_released_models_have_their_published_sizes():
    assert {name: hparams.n_params for name, hparams in RELEASED_MODELS.items()} == {
        "124M": 124_439_808,
        "355M": 354_823_168,
        "774M": 774_030_080,
        "1558M": 1_557_611_200,
    }
    assert [len(hparams.weight_shapes()) for hparams in RELEASED_MODELS.values()] == [148, 292, 436, 580]


def test_a_missing_key_takes_the_default_of_openai(tmp_path):
    path = tmp_path / "hparams.json"
    path.write_text('{"n_vocab": 7, "n_layer": 3}')
    assert load_hparams(path) == HParams(n_vocab=7, n_ctx=1024, n_embd=768, n_head=12, n_layer=3)


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "is damaged: it cannot be parsed as JSON"),
        ("[1]", "must be a JSON object"),
        ("{}", "must be a JSON object"),
        (json.dumps({"n_vocab": 7, "n_heads": 2}), "n_heads"),
        (json.dumps({"n_vocab": "7"}), "n_vocab must be a whole number of at least 1, not '7'"),
        (json.dumps({"n_vocab": 7.5}), "not 7.5"),
        (json.dumps({"n_vocab": True}), "not True"),
        (json.dumps({"n_vocab": 7, "n_ctx": 0}), "n_ctx must be a whole number of at least 1, not 0"),
        (json.dumps({"n_vocab": 7, "n_layer": 10**9}), "n_layer must be at most 10000, not 1000000000"),
        (json.dumps({"n_vocab": 1 << 31}), "n_vocab must be at most 2147483647, not 2147483648"),
        ('{"n_vocab": ' + "9" * 4300 + "}", r"n_vocab must be at most 2147483647, not 9+\.\.\.9+$"),
        ('{"n_vocab": ' + "[" * 900 + "]" * 900 + "}", "n_vocab must be a whole number"),
        ('{"n_vocab": 7, "n_head": NaN}', "n_head must be a whole number of at least 1, not nan"),
        ("[" * 100_000 + "]" * 100_000, "is damaged: it cannot be parsed as JSON"),
        (json.dumps({"n_vocab": 7, "n_embd": 10, "n_head": 3}), r"n_embd \(10\) must be a multiple of n_head \(3\)"),
    ],
)
def test_invalid_hparams_are_rejected_with_the_name_of_the_file(tmp_path, content, message):
    path = tmp_path / "hparams.json"
    path.write_text(content)
    with pytest.raises(GPT2Error, match=message) as caught:
        load_hparams(path)
    assert str(path) in str(caught.value)
