"""The column of a table's text, its header, and tables that are damaged."""

import gzip

import pytest

from gpt2.data import documents
from gpt2.data.documents import CsvFormat
from gpt2.errors import GPT2Error, UsageError

WITHOUT_HEADER = CsvFormat(header=False)
OLD = CsvFormat(first_column=True)  # as in gpt-2-simple


@pytest.fixture
def texts(tmp_path):
    """Return a function: texts(content, name, ...) -> the documents of a checked file."""

    def read(content, name="a.csv", csv_format=documents.PLAIN_CSV, **options):
        path = tmp_path / name
        data = content if isinstance(content, bytes) else content.encode("utf-8")
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        documents.check_files([path], csv_format=csv_format, **options)
        return [part.text for part in documents.read([path], csv_format=csv_format, **options)]

    return read


@pytest.mark.parametrize(
    "content, name, csv_format, expected",
    [
        ("id,text\n1,a\n2,b\n", "a.csv", CsvFormat(), ["a", "b"]),
        ("text,id\na,1\n", "a.csv", CsvFormat(), ["a"]),
        ("text\na\nb\n", "a.csv", CsvFormat(), ["a", "b"]),
        ("\n\n id , text \n1,a\n", "a.csv", CsvFormat(), ["a"]),
        ("id,body\n1,a\n", "a.csv", CsvFormat(column="body"), ["a"]),
        ("text,body\nx,a\n", "a.csv", CsvFormat(column="body"), ["a"]),
        ("id,id,text\n1,2,a\n", "a.csv", CsvFormat(), ["a"]),
        ("text,by,,\na,b,,\n", "a.csv", CsvFormat(), ["a"]),
        ("text\na,,\n", "a.csv", CsvFormat(), ["a"]),
        ('text\r\n"a\r\nb"\r\n', "a.csv", CsvFormat(), ["a\nb"]),
        ("\ufefftext,id\na,1\n", "a.csv", CsvFormat(), ["a"]),
        ("a\nb\n", "a.csv", WITHOUT_HEADER, ["a", "b"]),
        ("one; two\n", "a.csv", WITHOUT_HEADER, ["one; two"]),
        ("1,a\n2,b\n", "a.csv", CsvFormat(False, "column2"), ["a", "b"]),
        ("id\ttext\n1\ta, b\n", "a.tsv", CsvFormat(), ["a, b"]),
        ("id\ttext\n1\ta\n", "a.TSV.gz", CsvFormat(), ["a"]),
        ("id,text\n1,a\n", "a.csv.gz", CsvFormat(prefix="> "), ["> a"]),
        ("id,text\n1,a\n2\n3,b,c\n", "a.csv", OLD, ["1", "2", "3"]),
        ('x\n"a" b\n', "a.csv", OLD, ["a b"]),
        ("text\ta\nx\n", "a.tsv", OLD, ["text\ta\nx\n"]),
    ],
)
def test_the_text_column(texts, content, name, csv_format, expected):
    assert texts(content, name, csv_format) == expected


@pytest.mark.parametrize(
    "content, csv_format, message",
    [
        ("id,body\n1,a\n", CsvFormat(), "has 2 columns, and none is named 'text'; choose one with --column: id, body$"),
        ("Text,id\na,1\n", CsvFormat(), "none is named 'text'; choose one with --column: Text, id$"),
        ("id,text\n1,a\n", CsvFormat(column="body"), "has no column 'body'; choose one with --column: id, text$"),
        ("text\na\n", CsvFormat(column=""), "has no column ''; choose one with --column: text$"),
        ("1,a\n", WITHOUT_HEADER, "has 2 columns, and none is named 'text'; .* --column: column1, column2$"),
        (",,\n1,2,3\nx,y,z\n", CsvFormat(), "has 3 columns, and none is named 'text'; .*: 1, 2, 3$"),
        (",".join(map(str, range(99))), CsvFormat(), "--column: 0, 1, .*, 19 and 79 more$"),
    ],
)
def test_a_column_that_must_be_chosen_is_an_error_that_lists_the_columns(texts, content, csv_format, message):
    with pytest.raises(UsageError, match=rf"^\S+a.csv .*{message}"):
        texts(content, csv_format=csv_format)


@pytest.mark.parametrize(
    "content, message",
    [
        ("text,text\na,b\n", "a.csv has 2 columns named 'text'; rename one of them$"),
        ("id;text\n1;a\n", "a.csv is a single column, id;text; if ';' separates its columns, convert it to .* ','; if"),
        ("id\ttext\n1\ta\n", r"single column, 'id\\ttext'; if '\\t' separates its columns"),
        ("id|text\n1|a\n", r"single column, id\|text; if '\|' separates its columns"),
        ('id,text\n1,"a\n2,b\n', "a.csv cannot be read: line 2: a quotation mark is not closed$"),
        ('id,text\n1,a\n2,"b\n\n\n', "a.csv cannot be read: line 3: a quotation mark is not closed$"),
        ('id,text\n1,"a" b\n', 'line 2: text follows a closing quotation mark; .* write "" for each one$'),
        ("id,text\n1,a\n2\n", "line 3 has 1 column, but its header has 2; enclose a cell that contains the delimiter"),
        ("id,text\n1,a\n\n\n2,b,c\n", "line 5 has 3 columns, but its header has 2; enclose"),
        ("text\na, b\n", "line 2 has 2 columns, but its header has 1; enclose"),
        ("id,text,by\n1,a\n", "line 2 has 2 columns, but its header has 3; enclose"),
        ('text\n"a\nb"\nc,d\n', "line 4 has 2 columns, but its header has 1; enclose"),
    ],
)
def test_a_damaged_table_gives_one_line(texts, content, message):
    with pytest.raises(GPT2Error, match=rf"^[^\n]*{message}[^\n]*$"):
        texts(content)


def test_rows_of_another_length_without_a_header(texts):
    with pytest.raises(GPT2Error, match="line 2 has 2 columns, but its first row has 1; enclose"):
        texts("a\nb, c\n", csv_format=WITHOUT_HEADER)


def test_a_header_that_may_be_text_gives_a_warning(texts, tmp_path):
    remark = "the first row is read as the name of the only column; if it is text, add --no_header"
    with pytest.warns(UserWarning, match=f"^{remark}: {tmp_path / 'a.csv'}$"):
        assert texts("A sentence.\nAnother one.\n") == ["Another one."]
    assert texts("line\na\n", csv_format=CsvFormat(column="line")) == ["a"]


def test_all_tables_of_a_folder_are_checked_before_any_is_read(tmp_path):
    (tmp_path / "a.csv").write_text("text\n" + "words\n" * 9)
    (tmp_path / "b.csv").write_text("id,body\n1,a\n")
    with pytest.raises(UsageError, match="b.csv has 2 columns, and none is named 'text'"):
        documents.check_files(documents.find_text_files(str(tmp_path)))


@pytest.mark.parametrize("flags", [(None, True, True), ("a", True, True)])
def test_flags_that_contradict_each_other(flags):
    with pytest.raises(UsageError, match="give csv_header or no_header, not both"):
        CsvFormat.from_flags(*flags)
