"""Tokens, words, lines and files: the same sums, and texts in every form that they are written in."""

import csv
import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest

from gpt2.engine.scoring import ScoreOptions
from gpt2.errors import UsageError
from gpt2.evaluation import html_page, output_formats, units
from gpt2.evaluation.scores import protocol_of, score
from gpt2.evaluation.units import Unit

TEXT = "  the cat\n\nsat on ☃ the\tmat \n the dog"


def summarize_names(model, texts, by, likeliest=0, start=True):
    told = score(model, texts, protocol_of(32, model.encoder, start=start), ScoreOptions(True, likeliest))
    names = [f"text {number}" for number in range(len(texts))]
    return list(units.group_tokens(units.iterate_tokens(told, model.encoder), by, names))


@pytest.mark.parametrize("by", units.UNITS)
def test_sums_are_the_same_by_whatever_unit(scorer, by):
    texts = [TEXT, "", "one two", "\n"]
    tokens, found = summarize_names(scorer, texts, "token"), summarize_names(scorer, texts, by)
    for name in ("text 0", "text 2", "text 3"):
        mine, all_tokens = ([unit for unit in some if unit.name == name] for some in (found, tokens))
        assert sum(unit.tokens for unit in mine) == len(all_tokens)
        np.testing.assert_allclose(sum(unit.logprob for unit in mine), sum(unit.logprob for unit in all_tokens))
        assert max(unit.rank for unit in mine) == max(unit.rank for unit in all_tokens)


def test_white_space_belongs_to_the_word_after_it_and_an_end_of_line_to_its_line(scorer):
    words = [unit.text for unit in summarize_names(scorer, [TEXT], "word")]
    assert words == ["  the", " cat", "\n\nsat", " on", " ☃", " the", "\tmat", " \n the", " dog"]
    assert "".join(words) == TEXT
    lines = summarize_names(scorer, [TEXT, "x"], "line")
    assert [unit.text for unit in lines] == ["  the cat\n", "\n", "sat on ☃ the\tmat \n", " the dog", "x"]
    assert [unit.line for unit in lines] == [1, 2, 3, 4, 1]
    assert [unit.line for unit in summarize_names(scorer, [TEXT], "word")] == [1, 1, 1, 3, 3, 3, 3, 3, 4]


def test_a_first_token_that_is_not_scored_counts_as_a_token_alone(scorer):
    token, *others = summarize_names(scorer, ["the cat sat"], "token", start=False)
    assert (token.logprob, token.rank, token.bits) == (None, None, None) and all(one.logprob for one in others)
    (whole,) = summarize_names(scorer, ["the cat sat"], "file", start=False)
    assert whole.tokens == 1 + len(others) and whole.rank == max(one.rank for one in others)
    np.testing.assert_allclose(whole.logprob, sum(one.logprob for one in others))
    (lone,) = summarize_names(scorer, ["x"], "file", start=False)
    assert (lone.tokens, lone.logprob, lone.bits) == (1, None, None)


HOSTILE = ["<script>alert('&')</script>\x1b[2J\x00\r\"", "a\nb"]


class Page(HTMLParser):
    """The text of a page's <pre> parts, and its tags."""

    def __init__(self):
        super().__init__()
        self.inside, self.text, self.tags, self.titles = False, "", [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.inside = self.inside or tag == "pre"
        self.titles += [value for name, value in attributes if name == "title"]

    def handle_endtag(self, tag):
        self.inside = self.inside and tag != "pre"

    def handle_data(self, data):
        self.text += data if self.inside else ""


@pytest.mark.parametrize("by", ["token", "line"])
def test_a_page_holds_the_text_and_nothing_that_runs(scorer, by):
    found = summarize_names(scorer, HOSTILE, by, likeliest=2)
    found[0] = found[0]._replace(name="<b>name</b>", top_tokens=(("<i>", -1.0), *found[0].top_tokens))
    html = "".join(html_page.as_html(found))
    read = Page()
    read.feed(html)
    assert not {"script", "b", "link", "img"} & set(read.tags) and "http" not in html
    assert read.text.startswith("<script>alert('&')</script>\\x1b[2J\\x00\\r\"") and read.text.endswith("a↵\nb")
    assert not set(html) & set(map(chr, [*range(9), *range(11, 32)]))
    assert "bits" in read.titles[0] and "<i>" in read.titles[0]
    assert html.startswith("<!DOCTYPE html>") and html.rstrip().endswith("</html>")


def test_csv_and_json_lines_read_back(scorer):
    found = summarize_names(scorer, [TEXT, *HOSTILE], "token", likeliest=2)
    rows = list(csv.DictReader(io.StringIO("".join(output_formats.as_csv(found)), newline="")))
    objects = [json.loads(line) for line in "".join(output_formats.as_jsonl(found)).splitlines()]
    assert len(rows) == len(objects) == len(found)
    for row, one, unit in zip(rows, objects, found):
        assert row["text"] == one["text"] == unit.text and row["file"] == one["file"] == unit.name
        assert float(row["logprob"]) == one["logprob"] == unit.logprob and int(row["rank"]) == one["rank"] == unit.rank
        assert json.loads(row["likeliest"]) == one["likeliest"] == [list(other) for other in unit.top_tokens]
    unscored = Unit("x", 1, "a", 1, None, None)
    assert json.loads(next(iter(output_formats.as_jsonl([unscored]))))["logprob"] is None
    assert "".join(output_formats.as_csv([])) == ",".join(output_formats.COLUMNS) + "\n" and not list(
        output_formats.as_jsonl([])
    )


def test_a_table_is_one_line_for_each(scorer):
    found = summarize_names(scorer, HOSTILE, "line", likeliest=0)
    lines = "".join(output_formats.as_table(found)).split("\n")
    assert len(lines) == 1 + len(HOSTILE) + len(found) + 1
    assert "\x1b" not in "".join(lines) and lines[2].endswith('\\x1b[2J\\x00\\r"')


def test_forms_and_units_that_there_are_not():
    assert output_formats.resolve_form(None, ".HTML") == output_formats.resolve_form("html", ".txt") == "html"
    assert output_formats.resolve_form(None, "") == "table"
    with pytest.raises(UsageError, match="form must be one of table, csv, jsonl, html, not 'xml'"):
        output_formats.resolve_form("xml", "")
    with pytest.raises(UsageError, match="by must be one of token, word, line, file, not 'page'"):
        units.check_unit("page")
