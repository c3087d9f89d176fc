"""One .sql file, read into statements that can be sent to PostgreSQL.

A file is a list of statements, each under its name and mode::

    -- name: list_messages :page
    -- Newest first, below a sequence number.
    -- tenant: convo_id
    -- key: seq
    SELECT m.seq, m.id FROM messages AS m WHERE m.convo_id = :convo_id ...;

The ``--`` lines directly under a name are its header. One that begins with a single
lower-case word and a colon, ``-- word: value``, is a key; the set of keys is closed, so that
a mistyped key is an error. Any other is comment: in prose, a colon comes after several
words, or after one that is capitalised (``-- Note: ...``).

In the SQL ``:name`` is a parameter, wherever both PostgreSQL and psql would see one: not in a
string, a comment, a quoted identifier or a dollar quote. What a reader, psql and PostgreSQL
could take for different things is refused, so each file runs unchanged under
``psql -v convo_id="'c1'"``.

Four layers, top to bottom: tokens, placeholders, the header, the file. The first three say
what is wrong at which offset (``Mistake``); ``parse`` says it with file, line and column.
"""

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, get_args

Mode = Literal["one", "maybe", "many", "page", "value", "rows", "exec"]
MODES: tuple[Mode, ...] = get_args(Mode)
HEADER_KEYS = ("tenant", "actor", "key", "index", "not-null", "unbounded", "order")


class SqlFileError(Exception):
    """A .sql file that cannot be read: where, what is wrong, what to write instead.

    ``line`` and ``column`` count from 1; ``excerpt`` is that line of the file.
    """

    def __init__(self, path: Path, line: int, column: int, message: str, excerpt: str) -> None:
        super().__init__(path, line, column, message, excerpt)
        self.path = path
        self.line = line
        self.column = column
        self.message = message
        self.excerpt = excerpt

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}:{self.column}"
        indent = re.sub(r"[^\t]", " ", self.excerpt[: self.column - 1])
        return f"{place}: {self.message}\n{self.excerpt}\n{indent}^"


class Mistake(Exception):
    """What is wrong at an offset of a text, before it is known which file that is."""

    def __init__(self, offset: int, message: str) -> None:
        super().__init__(offset, message)
        self.offset = offset
        self.message = message


class Edit(NamedTuple):
    """In what is sent, ``text`` stands for ``source[start:end]``."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a file, and its header."""

    label: str  # chat.messages.list_messages
    name: str
    mode: Mode
    path: Path
    line: int  # of '-- name:', from 1
    comment: str  # the header's lines that are not keys
    header: Mapping[str, str]  # as written; the lines of not-null are joined by newlines
    header_lines: Mapping[str, int]  # where each key first stands
    source: str  # as written, without the final ';'
    sql: str  # as sent: $1, $2 ..., and the label after the first keyword
    parameters: tuple[str, ...]  # in the order of $1, $2 ...
    origin: tuple[int, int] = field(repr=False)  # line and column of source in the file
    edits: tuple[Edit, ...] = field(repr=False)  # what makes sql of source, in order

    @property
    def actor(self) -> tuple[str, str | None] | None:
        """The parameter that names the actor, and one that is true where nobody is asked for it."""
        match = _ACTOR.fullmatch(self.header.get("actor", "none"))
        return (match[1], match[2]) if match and match[1] != "none" else None

    @property
    def tenant(self) -> tuple[str, ...]:
        """What binds tenants' tables; empty without that key, and for an exemption."""
        return self._unless_none("tenant")

    @property
    def key(self) -> tuple[str, ...]:
        """The columns that a page is ordered by; empty in other modes."""
        return _listed(self.header.get("key", ""))

    @property
    def order(self) -> tuple[str, ...]:
        """The columns that are said to tell the rows of a list apart."""
        return _listed(self.header.get("order", ""))

    @property
    def index(self) -> tuple[str, ...]:
        """The indexes that the plan may use; empty without that key, and for an exemption."""
        return self._unless_none("index")

    def _unless_none(self, key: str) -> tuple[str, ...]:
        value = self.header.get(key, "")
        return () if _NONE.match(value) else _listed(value)

    def locate(self, position: int) -> tuple[int, int]:
        """Line and column in the file of a ``position`` that PostgreSQL reports in ``sql``.

        All three count characters from 1. Inside ``$n`` it is where the placeholder begins,
        inside the label where the first keyword ends, past the end where the source ends.
        """
        offset = position - 1
        for start, end, text in self.edits:
            if offset < start:
                break
            if offset < start + len(text):
                offset = start
                break
            offset += (end - start) - len(text)
        offset = min(max(offset, 0), len(self.source))
        line, column = _line_and_column(_line_starts(self.source), offset)
        first_line, first_column = self.origin
        return first_line + line - 1, column + (first_column - 1 if line == 1 else 0)


# ---- tokens: cut as PostgreSQL's own scanner (scan.l) does, as far as parameters need it


class Token(NamedTuple):
    kind: str  # the group of _TOKEN that matched
    text: str
    start: int
    end: int


# To PostgreSQL every character beyond ASCII is a letter, U+00A0 too; said by what a letter is
# not, as that compiles thirty times faster. Only E'..' has backslashes, and so has what
# continues it after a newline, blank space and '--' comments; how other literals begin or go on
# does not change what is inside them. (psql takes one line at a time, and such a continuation
# for a plain string: with \' in it, write one E'..' instead.) '*+' gives nothing back: there is
# no second way to read SQL.
_LETTER = r"[^\x00-@\[-^`{-\x7f]"
_LETTER_OR_DIGIT = r"[^\x00-/:-@\[-^`{-\x7f]"
_WORD = rf"{_LETTER} [^\x00-\#%-/:-@\[-^`{{-\x7f]*+"  # '$' may stand in it
_VARIABLE = rf"{_LETTER} {_LETTER_OR_DIGIT}*+"
_CODE = rf"""(?: (?! [eE]' ) {_WORD} | [0-9] {_LETTER_OR_DIGIT}*+
               | [,.=<>*+|&!@\#%^?~]++ | :: | -(?!-) | /(?!\*) )"""
_ESCAPED = r"(?: ' [^'\\]*+ (?: (?: \\. | '' ) [^'\\]*+ )*+ ' )"
_CONTINUED = r"""(?: (?: [ \t\f\v]++ | --[^\n\r]*+ )*+ [\n\r]
                     (?: [ \t\n\r\f\v]++ | --[^\n\r]*+[\n\r] )*+ (?=') )"""
_TAG = rf"\$ (?: {_VARIABLE} )? \$"
_TOKEN = re.compile(
    rf"""[ \t\n\r\f\v]*+ (?:
      (?P<code>        {_CODE} (?: [ \t\n\r\f\v]*+ {_CODE} )*+ )
    | (?P<psql>        : (?: ' {_LETTER_OR_DIGIT}++ ' | " {_LETTER_OR_DIGIT}++ "
                           | \{{\? {_LETTER_OR_DIGIT}++ \}} ) )
    | (?P<placeholder> : {_VARIABLE} )
    | (?P<open>        [(\[] )
    | (?P<close>       [)\]] )
    | (?P<semicolon>   ; )
    | (?P<line>        --[^\n\r]*+ )
    | (?P<block>       /\* )
    | (?P<string>      ' [^']*+ (?: '' [^']*+ )*+ '
                     | [eE] {_ESCAPED} (?: {_CONTINUED} {_ESCAPED} )*+ (?! {_CONTINUED} )
                     | (?P<tag> {_TAG} ) .*? (?P=tag) )
    | (?P<identifier>  " [^"]*+ (?: "" [^"]*+ )*+ " )
    | (?P<unclosed>    ' | [eE]' | " | {_TAG} )
    | (?P<dollar>      \$ [0-9]*+ )
    | (?P<other>       [^ \t\n\r\f\v] )
    )""",
    re.VERBOSE | re.DOTALL,
)
_BLOCK_EDGE = re.compile(r"/\*|\*/")
_COMMENTS = ("line", "block")


def tokens(text: str) -> Iterator[Token]:
    """Each token of ``text``, comments too; between them is nothing but blank space.

    Words, numbers and operators that follow each other are one token, ``code``.

    Raises:
        Mistake: something is opened and never closed.
    """
    end = 0
    while match := _TOKEN.match(text, end):
        kind = match.lastgroup or "other"
        start, end = match.span(kind)
        if kind == "block":
            end = _block_end(text, start)
        elif kind == "unclosed":
            raise Mistake(start, _unclosed(match[kind]))
        yield Token(kind, text[start:end], start, end)


def _block_end(text: str, start: int) -> int:
    depth = 0
    for edge in _BLOCK_EDGE.finditer(text, start):
        depth += 1 if edge[0] == "/*" else -1
        if depth == 0:
            return edge.end()
    raise Mistake(start, "this comment is never closed; write */ at its end")


def _unclosed(opening: str) -> str:
    if opening.endswith("$"):
        return f"this dollar quote is never closed; write {opening} at its end"
    if opening.endswith('"'):
        return 'this quoted identifier is never closed; write " at its end'
    return "this string is never closed; write ' at its end, and '' for a quote inside it"


# ---- placeholders: what becomes $1, $2 ..., and where the label goes

_NAME = re.compile(r"[a-z_][a-z0-9_]*")
_KEYWORD = re.compile(rf"[A-Za-z] {_WORD}", re.VERBOSE)  # no single letter: b'..' has no keyword
_WORD_END = re.compile(rf"(?: {_LETTER_OR_DIGIT} | \$ )\Z", re.VERBOSE)
_BEFORE_ARRAY = re.compile(
    rf"(?: (?<!\$) (?<!{_LETTER_OR_DIGIT}) (?i:ARRAY) | [\[,] )\Z", re.VERBOSE
)


def placeholders(statement: Sequence[Token]) -> Iterator[Token]:
    """The tokens of a statement that are parameters.

    Raises:
        Mistake: one that PostgreSQL, psql and a reader could take for different things.
    """
    subscripts: list[bool] = []  # for each open bracket, whether it is a subscript's
    before = Token("", "", -1, -1)  # the last that is not a comment
    for token in statement:
        kind, text, start, _ = token
        if kind in _COMMENTS:
            continue
        if before.end == start and _touch(before, token):
            raise Mistake(start, "this touches what is before it; write a space between")
        if kind == "placeholder":
            if subscripts[-1:] == [True]:
                raise Mistake(start, f"in [] this could end a slice; write ({text}), or a number")
            if not _NAME.fullmatch(text, 1):
                raise Mistake(start, f"{text} is no name; write lower case: a-z, 0-9 and _")
            yield token
        elif kind == "open":
            subscripts.append(text == "[" and not _BEFORE_ARRAY.search(before.text))
        elif kind == "close":
            del subscripts[-1:]
        elif kind == "psql":
            raise Mistake(start, f"{text} is known to psql alone; write :name")
        elif kind == "dollar":
            raise Mistake(start, f"{text} has no name; write :name")
        before = token


def _touch(before: Token, token: Token) -> bool:
    """Whether a parameter runs into its neighbour: ``x:a`` would be sent as the name ``x$1``."""
    if token.kind == "placeholder":
        return _WORD_END.search(before.text) is not None
    return before.kind == "placeholder" and token.kind in ("string", "identifier")


def render(
    source: str, statement: Sequence[Token], label: str
) -> tuple[str, tuple[str, ...], list[Edit]]:
    """What is sent for ``source``, its parameters, and the edits between the two.

    ``statement`` holds the tokens of ``source`` and begins with a keyword. The label stands
    after that, as pg_stat_statements drops comments that stand before it.
    """
    edits: list[Edit] = []
    numbers: dict[str, int] = {}
    base = statement[0].start
    first = next(token for token in statement if token.kind == "code")
    if keyword := _KEYWORD.match(first.text):
        at = first.start - base + keyword.end()
        edits.append(Edit(at, at, f" /* {label} */"))
    for _, text, start, end in placeholders(statement):
        number = numbers.setdefault(text[1:], len(numbers) + 1)
        edits.append(Edit(start - base, end - base, f"${number}"))

    pieces: list[str] = []
    copied = 0
    for start, end, text in edits:
        pieces += source[copied:start], text
        copied = end
    return "".join([*pieces, source[copied:]]), tuple(numbers), edits


# ---- the header

_NAME_LINE = re.compile(rf"-- name:[ \t]+({_NAME.pattern})(?:[ \t]+:([a-z]+))?[ \t]*")
_NAME_INSIDE = re.compile(r"^--[ \t]*name[ \t]*:", re.MULTILINE)
_LIKE_NAME_LINE = re.compile(r"--[ \t]*name[ \t]*(?::|[ \t]\S+[ \t]+:\S+[ \t]*$)")
_KEY_LINE = re.compile(r"-- ([a-z][a-z-]*):(?:[ \t]+(.*?))?[ \t]*")
_LIKE_KEY_LINE = re.compile(rf"--[ \t]*({'|'.join(HEADER_KEYS)})[ \t]*:")
_REASON = r"[ \t]+\([ \t]*[^ \t)].*\)"
_NONE = re.compile(r"none(?![a-z0-9_])")
_EXEMPTION = re.compile(rf"none{_REASON}")
_NOT_NULL = re.compile(rf"{_NAME.pattern}{_REASON}")
_ACTOR = re.compile(rf"({_NAME.pattern})(?:[ \t]+unless[ \t]+({_NAME.pattern}){_REASON})?")
_NAMES = rf"{_NAME.pattern}(?:[ \t]*,[ \t]*{_NAME.pattern})*"
_LIST = re.compile(rf"{_NAMES}(?:{_REASON})?")
_CLAIM = re.compile(rf"{_NAMES}{_REASON}")
_MODES = ", ".join(f":{mode}" for mode in MODES)


def read_name(line: Token) -> tuple[str, Mode]:
    """Name and mode of a ``-- name:`` line."""
    match = _NAME_LINE.fullmatch(line.text)
    if match is None:
        raise Mistake(line.start, "cannot read this name line; write '-- name: lower_case :one'")
    name, mode = match.groups()
    if mode is None:
        raise Mistake(line.end, f"{name} has no mode; write one of {_MODES}")
    if mode not in MODES:
        raise Mistake(
            line.start + match.start(2) - 1, f"unknown mode :{mode}; write one of {_MODES}"
        )
    return name, mode


def read_header(lines: Sequence[Token]) -> tuple[str, dict[str, str], dict[str, int]]:
    """The comment of a header, the values of its keys, and the offsets of its keys."""
    comment: list[str] = []
    values: dict[str, str] = {}
    offsets: dict[str, int] = {}
    for line in lines:
        match = _KEY_LINE.fullmatch(line.text)
        if match is None:
            if like := _LIKE_KEY_LINE.match(line.text):
                raise Mistake(line.start, f"a key is written '-- {like[1]}: value'; write it so")
            comment.append(line.text[2:].removeprefix(" ").rstrip())
            continue
        key, value = match[1], match[2] or ""
        at = line.start + match.start(1)
        if key not in HEADER_KEYS:
            known = ", ".join(HEADER_KEYS)
            raise Mistake(
                at, f"unknown key {key}; write one of {known}, or a capital if it is prose"
            )
        if not value:
            raise Mistake(at, f"{key} has no value; write '-- {key}: value'")
        if key in values and key != "not-null":
            raise Mistake(at, f"a second {key}; write one line that says all of it")
        _check_value(key, value, line.start + match.start(2))
        values[key] = f"{values[key]}\n{value}" if key in values else value
        offsets.setdefault(key, at)
    return "\n".join(comment).strip(), values, offsets


def _check_value(key: str, value: str, at: int) -> None:
    if key in ("tenant", "actor", "index") and _NONE.match(value):
        if not _EXEMPTION.fullmatch(value):
            raise Mistake(at, f"an exemption has its reason; write '-- {key}: none (the reason)'")
    elif key == "actor":
        if not _ACTOR.fullmatch(value):
            raise Mistake(
                at,
                "actor is a parameter; write '-- actor: parameter', or"
                " '-- actor: parameter unless other (the reason)'",
            )
    elif key == "not-null":
        if not _NOT_NULL.fullmatch(value):
            raise Mistake(at, "a claim has its reason; write '-- not-null: column (the reason)'")
    elif key == "order" and not _CLAIM.fullmatch(value):
        raise Mistake(at, "a claim has its reason; write '-- order: columns (the reason)'")
    elif key in ("key", "index") and not _LIST.fullmatch(value):
        raise Mistake(at, f"{key} is a list of names; write '-- {key}: one, another'")


def _listed(value: str) -> tuple[str, ...]:
    names, _, _reason = value.partition("(")
    return tuple(name.strip() for name in names.split(",")) if names else ()


# ---- the file

_NEWLINE = re.compile(r"\r\n|\n|\r")


def load(path: Path, *, module: str) -> dict[str, Statement]:
    """The statements of a file in UTF-8, as ``parse``.

    Raises:
        SqlFileError: as ``parse``, and if the file is not UTF-8.
        OSError: there is no such file, or it cannot be read.
    """
    data = path.read_bytes()
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        mistake = Mistake(len(data[: error.start].decode()), "not UTF-8; save the file as UTF-8")
        raise _in_file(mistake, data.decode(errors="replace"), path) from None
    return parse(text, path=path, module=module)


def parse(text: str, *, path: Path, module: str) -> dict[str, Statement]:
    """The statements of a file by name, in the order of the file.

    Args:
        text: what the file says.
        path: where it is, for errors and for who reads the statements.
        module: the Python module beside it, as in ``chat.messages``; labels begin with it.

    Raises:
        SqlFileError: something in it cannot be read.
    """
    found: dict[str, Statement] = {}
    line_starts = _line_starts(text)
    try:
        for section in _sections(text):
            statement = _statement(section, text, line_starts, path, module)
            first = found.setdefault(statement.name, statement)
            if first is not statement:
                at = section[0].start
                raise Mistake(
                    at, f"{first.name} is named on line {first.line} already; write another name"
                )
    except Mistake as mistake:
        raise _in_file(mistake, text, path) from None
    return found


def salvage(path: Path, *, module: str) -> tuple[dict[str, Statement], list[SqlFileError]]:
    """What can be read of a file, and all that is wrong with it: each name's lines on their own."""
    try:
        return load(path, module=module), []
    except SqlFileError as error:
        first = error
    text = path.read_bytes().decode(errors="replace")
    found: dict[str, Statement] = {}
    mistakes: list[SqlFileError] = []
    for part in re.split(r"^(?=--[ \t]*name[ \t]*:)", text, flags=re.MULTILINE):
        above = text[: text.index(part)].count("\n") if part else 0
        try:
            parsed = parse("\n" * above + part, path=path, module=module)
            found.update({name: one for name, one in parsed.items() if name not in found})
        except SqlFileError as error:
            mistakes.append(error)
    places = [(one.line, one.column) for one in mistakes]
    return found, mistakes if (first.line, first.column) in places else [first, *mistakes]


def _sections(text: str) -> Iterator[list[Token]]:
    """The tokens of a file, cut before each name line; above the first is only comment."""
    if text.startswith("\ufeff"):
        raise Mistake(0, "the file has a byte order mark; save it as UTF-8 without one")
    section: list[Token] = []
    for token in tokens(text):
        if token.kind in ("string", "identifier") and _NAME_INSIDE.search(token.text):
            raise Mistake(token.start, "this runs over the next name line; end it before")
        named = token.kind == "line" and _LIKE_NAME_LINE.match(token.text)
        if named and text[token.start - 1 : token.start] in ("", "\n", "\r"):
            if section:
                yield section
            section = [token]
        elif section:
            section.append(token)
        elif token.kind not in _COMMENTS:
            raise Mistake(token.start, "SQL without a name; write '-- name: ...' above it")
    if section:
        yield section


def _statement(
    section: list[Token], text: str, line_starts: list[int], path: Path, module: str
) -> Statement:
    opening = section[0]
    name, mode = read_name(opening)
    size = 1
    while size < len(section) and _is_next_line(section[size], section[size - 1], text):
        size += 1
    comment, header, offsets = read_header(section[1:size])
    if mode == "page" and "key" not in header:
        raise Mistake(opening.start, "a page without a key; write '-- key: columns' under its name")
    if mode != "page" and "key" in header:
        raise Mistake(offsets["key"], "only a page has a key; write :page as the mode, or drop it")
    if mode != "many" and "order" in header:
        raise Mistake(offsets["order"], "only :many has an order of its own; drop this line")

    statement = _one_statement(section, size, text)
    source = text[statement[0].start : statement[-1].end].rstrip(" \t\f\v")
    label = f"{module}.{name}"
    sql, parameters, edits = render(source, statement, label)
    return Statement(
        label=label,
        name=name,
        mode=mode,
        path=path,
        line=_line_and_column(line_starts, opening.start)[0],
        comment=comment,
        header=header,
        header_lines={key: _line_and_column(line_starts, at)[0] for key, at in offsets.items()},
        source=source,
        sql=sql,
        parameters=parameters,
        origin=_line_and_column(line_starts, statement[0].start),
        edits=tuple(edits),
    )


def _one_statement(section: list[Token], size: int, text: str) -> list[Token]:
    """The tokens from the header, of ``size`` lines, to the semicolon; only comment is behind it.

    The last statement of a file may lack the semicolon: psql sends it all the same.
    """
    end = next((i for i, token in enumerate(section) if token.kind == "semicolon"), len(section))
    statement = section[size:end]
    sql = [token for token in statement if token.kind not in _COMMENTS]
    first = next((token for token in sql if token.kind != "open"), None)
    if first is None:
        raise Mistake(section[0].start, "a name without SQL; write a statement under the header")
    if first.kind != "code" or not _KEYWORD.match(first.text):
        raise Mistake(first.start, "a statement begins with a keyword; write SELECT or another")
    if end == len(section) and text[section[-1].end :].strip():
        raise Mistake(sql[-1].end - 1, "no end before the next name; write ; after this")
    for token in section[end + 1 :]:
        if token.kind not in _COMMENTS:
            raise Mistake(token.start, "more than one statement; write '-- name: ...' above this")
    return statement


def _is_next_line(token: Token, above: Token, text: str) -> bool:
    return token.kind == "line" and _NEWLINE.fullmatch(text, above.end, token.start) is not None


def _line_starts(text: str) -> list[int]:
    return [0, *(newline.end() for newline in _NEWLINE.finditer(text))]


def _line_and_column(line_starts: list[int], offset: int) -> tuple[int, int]:
    line = bisect_right(line_starts, offset)
    return line, offset - line_starts[line - 1] + 1


def _in_file(mistake: Mistake, text: str, path: Path) -> SqlFileError:
    line, column = _line_and_column(_line_starts(text), mistake.offset)
    return SqlFileError(path, line, column, mistake.message, _NEWLINE.split(text)[line - 1])
