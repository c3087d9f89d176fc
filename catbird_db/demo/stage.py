"""How the demo looks: a chapter, a step, a line of chat. No more than 100 columns, or a file's 80."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table

WIDTH = 100
CALL_WIDTH = 24
LEFT = 1


class Stage:
    """A console, and the few shapes that are shown on it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._width = min(console.width, WIDTH)
        plain = not console.encoding.lower().startswith("utf")
        self.yes, self.no = ("ok", "FAILED") if plain else ("✓", "✗")
        self._chapters = 0

    def panel(self, text: str, *, title: str, style: str = "cyan") -> None:
        self._print(Panel(text, title=title, border_style=style, padding=(1, 3)))

    def chapter(self, title: str) -> None:
        self._chapters += 1
        self._print("")
        self._print(Rule(f"[bold]{self._chapters} · {title}[/]", align="left", style="cyan"))

    def rule(self, title: str) -> None:
        self._print("")
        self._print(Rule(f"[bold]{title}[/]", align="left", style="cyan"))

    def step(self, call: str, text: str, holds: bool | None = None) -> None:
        """The function of catbird_db that was called, what came of it, and if a promise held."""
        line = Table.grid(padding=(0, 1), expand=True)
        line.add_column(width=LEFT)
        line.add_column(width=CALL_WIDTH, no_wrap=True)
        line.add_column(ratio=1)
        line.add_row(
            "", f"[cyan]{call}[/]", text if holds is None else f"{text} {self.mark(holds)}"
        )
        self._print(line)

    def note(self, text: str) -> None:
        """A remark on the step above."""
        self.step("", f"[dim italic]{text}[/]")

    def chat(self, seq: int, who: str, text: str, size: int, openings: int) -> None:
        """One message, as those who could open it read it."""
        line = Table.grid(padding=(0, 1), expand=True)
        line.add_column(width=LEFT + 4, justify="right", style="dim")
        line.add_column(width=13)
        line.add_column(ratio=1)
        line.add_column(justify="right", style="dim", no_wrap=True)
        line.add_row(str(seq), who, f"“{escape(text)}”", f"{size} B, opened by {openings}")
        self._print(line)

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        right: Sequence[str] = (),
        spaced: bool = False,
    ) -> None:
        """A table; the columns named in ``right`` are of numbers."""
        table = Table(box=None, padding=(0, 2, int(spaced), 0), header_style="bold", pad_edge=False)
        for column in columns:
            table.add_column(
                column,
                justify="right" if column in right else "left",
                overflow="fold",
                vertical="top",
            )
        for row in rows:
            table.add_row(*row)
        grid = Table.grid(padding=(0, 0))
        grid.add_column(width=LEFT + 1)
        grid.add_column()
        grid.add_row("", table)
        self._print("")
        self._print(grid)

    def mark(self, good: bool) -> str:
        return f"[bold green]{self.yes}[/]" if good else f"[bold red]{self.no}[/]"

    def success(self, text: str) -> None:
        self._print(Panel(f"{self.mark(True)} {text}", border_style="green"))

    def failure(self, text: str) -> None:
        self._print(Panel(f"{self.mark(False)} [red]{escape(text)}[/]", border_style="red"))

    @contextmanager
    def busy(self, text: str) -> Generator[None]:
        """A spinner, on a terminal, for what takes longer than a moment."""
        if not self._console.is_terminal:
            yield
            return
        with self._console.status(f"[cyan]{text}[/]"):
            yield

    def _print(self, what: "str | Table | Rule | Panel") -> None:
        self._console.print(what, width=self._width, highlight=False)


def hex_of(data: bytes, digits: int = 8) -> str:
    """The beginning of some bytes: enough to recognise them."""
    return f"[dim]{data.hex()[:digits]}…[/]"


def count(number: int, noun: str, plural: str | None = None) -> str:
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def size_of(number: int) -> str:
    return f"{number:,} B" if number < 10_000 else f"{number / 1024:,.0f} KB"
