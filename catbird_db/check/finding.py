"""A finding: which rule, where, what is wrong, what to write instead; and how it is shown."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Format = Literal["text", "json", "github"]


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One thing that is wrong, as a good compiler says it.

    Attributes:
        path: the file, relative to the project where it lies in it.
        line, column: where in the file, from 1.
        rule: the rule's id, such as ``tenant``.
        message: what is wrong, one sentence.
        mend: what to write instead, one sentence.
        excerpt: the line of the file.
        width: characters that the carets underline.
    """

    path: Path
    line: int
    column: int
    rule: str
    message: str
    mend: str
    excerpt: str = ""
    width: int = 1

    def __str__(self) -> str:
        margin = " " * len(str(self.line))
        indent = "".join("\t" if c == "\t" else " " for c in self.excerpt[: self.column - 1])
        return "\n".join(
            [
                f"{self.path}:{self.line}:{self.column}: {self.rule}: {self.message}",
                f" {margin} |",
                f" {self.line} | {self.excerpt}",
                f" {margin} | {indent}{'^' * max(1, self.width)}",
                f" {margin} = write: {self.mend}",
            ]
        )


def render(findings: Iterable[Finding], form: Format) -> str:
    """All findings, sorted by file, as text, as JSON, or as GitHub's annotations."""
    ordered = sorted(findings)
    match form:
        case "text":
            return "\n\n".join(map(str, ordered))
        case "json":
            return json.dumps([{**asdict(one), "path": str(one.path)} for one in ordered], indent=2)
        case "github":
            return "\n".join(map(_annotation, ordered))


def _annotation(finding: Finding) -> str:
    text = f"{finding.message}; write: {finding.mend}"
    for character, escaped in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A")):
        text = text.replace(character, escaped)
    return (
        f"::error file={finding.path},line={finding.line},col={finding.column},"
        f"title=catbird-db check: {finding.rule}::{text}"
    )
