"""Scores grouped by token, word, line and file, and written in each output format."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from html.parser import HTMLParser

import numpy as np
import pytest

from gpt2.engine.scoring import ScoreOptions
from gpt2.errors import UsageError
from gpt2.evaluation import html_page, output_formats, units
from gpt2.evaluation.scores import protocol_of, score
from gpt2.evaluation.units import Unit
from gpt2.text_batch import Model

TEXT = "  the cat\n\nsat on ☃ the\tmat \n the dog"


def score_units(model: Model, texts: Sequence[str], by: str, top_count: int = 0, start: bool = True) -> list[Unit]:
    """Score texts, named "text 0" and so on, and group their tokens."""
    scores = score(model, texts, protocol_of(32, model.encoder, start=start), ScoreOptions(True, top_count))
    names = [f"text {number}" for number in range(len(texts))]
    return list(units.group_tokens(units.iterate_tokens(scores, model.encoder), by, names))


@pytest.mark.parametrize("by", units.UNITS)
def test_sums_are_the_same_for_every_unit(scorer, by):
    texts = [TEXT, "", "one two", "\n"]
    all_tokens = score_units(scorer, texts, "token")
    all_units = score_units(scorer, texts, by)
    for name in ("text 0", "text 2", "text 3"):
        grouped = [unit for unit in all_units if unit.name == name]
        tokens = [token for token in all_tokens if token.name == name]
        assert sum(unit.tokens for unit in grouped) == len(tokens)
        np.testing.assert_allclose(sum(unit.logprob for unit in grouped), sum(token.logprob for token in tokens))
        assert max(unit.rank for unit in grouped) == max(token.rank for token in tokens)


def test_white_space_belongs_to_the_next_word_and_a_line_end_to_its_line(scorer):
    words = [unit.text for unit in score_units(scorer, [TEXT], "word")]
    assert words == ["  the", " cat", "\n\nsat", " on", " ☃", " the", "\tmat", " \n the", " dog"]
    assert "".join(words) == TEXT
    lines = score_units(scorer, [TEXT, "x"], "line")
    assert [unit.text for unit in lines] == ["  the cat\n", "\n", "sat on ☃ the\tmat \n", " the dog", "x"]
    assert [unit.line for unit in lines] == [1, 2, 3, 4, 1]
    assert [unit.line for unit in score_units(scorer, [TEXT], "word")] == [1, 1, 1, 3, 3, 3, 3, 3, 4]


def test_an_unscored_first_token_counts_as_a_token_without_a_score(scorer):
    token, *others = score_units(scorer, ["the cat sat"], "token", start=False)
    assert (token.logprob, token.rank, token.bits) == (None, None, None) and all(other.logprob for other in others)
    (whole,) = score_units(scorer, ["the cat sat"], "file", start=False)
    assert whole.tokens == 1 + len(others) and whole.rank == max(other.rank for other in others)
    np.testing.assert_allclose(whole.logprob, sum(other.logprob for other in others))
    (single,) = score_units(scorer, ["x"], "file", start=False)
    assert (single.tokens, single.logprob, single.bits) == (1, None, None)


HOSTILE = ["<script>alert('&')</script>\x1b[2J\x00\r\"", "a\nb"]


class PageParser(HTMLParser):
    """Collects the text of a page's <pre> elements, its tags, and its tooltips."""

    def __init__(self):
        super().__init__()
        self.in_pre = False
        self.text = ""
        self.tags = []
        self.titles = []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.in_pre = self.in_pre or tag == "pre"
        self.titles += [value for name, value in attributes if name == "title"]

    def handle_endtag(self, tag):
        self.in_pre = self.in_pre and tag != "pre"

    def handle_data(self, data):
        self.text += data if self.in_pre else ""


@pytest.mark.parametrize("by", ["token", "line"])
def test_a_page_holds_the_text_and_no_active_content(scorer, by):
    scored = score_units(scorer, HOSTILE, by, top_count=2)
    scored[0] = scored[0]._replace(name="<b>name</b>", top_tokens=(("<i>", -1.0), *scored[0].top_tokens))
    html = "".join(html_page.as_html(scored))
    parser = PageParser()
    parser.feed(html)
    assert not {"script", "b", "link", "img"} & set(parser.tags) and "http" not in html
    assert parser.text.startswith("<script>alert('&')</script>\\x1b[2J\\x00\\r\"") and parser.text.endswith("a↵\nb")
    assert not set(html) & set(map(chr, [*range(9), *range(11, 32)]))
    assert "bits" in parser.titles[0] and "<i>" in parser.titles[0]
    assert html.startswith("<!DOCTYPE html>") and html.rstrip().endswith("</html>")


def test_csv_and_json_lines_can_be_read_back(scorer):
    scored = score_units(scorer, [TEXT, *HOSTILE], "token", top_count=2)
    rows = list(csv.DictReader(io.StringIO("".join(output_formats.as_csv(scored)), newline="")))
    objects = [json.loads(line) for line in "".join(output_formats.as_jsonl(scored)).splitlines()]
    assert len(rows) == len(objects) == len(scored)
    for row, item, unit in zip(rows, objects, scored):
        assert row["text"] == item["text"] == unit.text
        assert row["file"] == item["file"] == unit.name
        assert float(row["logprob"]) == item["logprob"] == unit.logprob
        assert int(row["rank"]) == item["rank"] == unit.rank
        assert json.loads(row["likeliest"]) == item["likeliest"] == [list(token) for token in unit.top_tokens]
    unscored = Unit("x", 1, "a", 1, None, None)
    assert json.loads(next(iter(output_formats.as_jsonl([unscored]))))["logprob"] is None
    assert "".join(output_formats.as_csv([])) == ",".join(output_formats.COLUMNS) + "\n"
    assert not list(output_formats.as_jsonl([]))


def test_a_table_has_one_line_per_unit(scorer):
    scored = score_units(scorer, HOSTILE, "line", top_count=0)
    lines = "".join(output_formats.as_table(scored)).split("\n")
    assert len(lines) == 1 + len(HOSTILE) + len(scored) + 1
    assert "\x1b" not in "".join(lines) and lines[2].endswith('\\x1b[2J\\x00\\r"')


def test_unknown_forms_and_units_are_rejected():
    assert output_formats.resolve_form(None, ".HTML") == output_formats.resolve_form("html", ".txt") == "html"
    assert output_formats.resolve_form(None, "") == "table"
    with pytest.raises(UsageError, match="form must be one of table, csv, jsonl, html, not 'xml'"):
        output_formats.resolve_form("xml", "")
    with pytest.raises(UsageError, match="by must be one of token, word, line, file, not 'page'"):
        units.check_unit("page")
