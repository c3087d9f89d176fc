"""Which conditions hold for which relation, by the joins between them: see `levels`."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Literal, TypeAlias

from .levels import Expression, Level, Relation

JoinKind = Literal["inner", "left", "right", "full"]
Conditions: TypeAlias = tuple[Expression, ...]
Relations: TypeAlias = tuple[Relation, ...]


@dataclass(frozen=True, slots=True)
class Join:
    kind: JoinKind
    left: "Item"
    right: "Item"
    on: Conditions


Item: TypeAlias = Relation | Join


def settle(level: Level, items: Iterable[Item], where: Conditions) -> None:
    """Say of a level, and of what it joins, what `levels` promises: conditions, present, beside.

    Args:
        level: the level.
        items: of its FROM, or the target and the FROM or USING of a write.
        where: the conditions of its WHERE.
    """
    level.conditions = where
    rest = list(items)
    if rest:
        tree = reduce(lambda left, right: Join("inner", left, right, ()), rest)
        conditions, level.present = _always(tree)
        level.conditions += conditions
        _tell(tree, where, ())


def _always(item: Item) -> tuple[Conditions, Relations]:
    """What is true of each row of an item, and which relations have a row of their own in each."""
    if isinstance(item, Relation):
        return (), (item,)
    left, in_left = _always(item.left)
    right, in_right = _always(item.right)
    match item.kind:
        case "inner":
            return item.on + left + right, in_left + in_right
        case "left":
            return left, in_left
        case "right":
            return right, in_right
        case "full":
            return (), ()


def _tell(item: Item, conditions: Conditions, beside: Relations) -> None:
    """Tell an item's relations what holds where they have a row: ``conditions``, and its own joins."""
    if isinstance(item, Relation):
        item.conditions, item.beside = conditions, beside
        return
    left, in_left = _always(item.left)
    right, in_right = _always(item.right)
    if item.kind in ("inner", "right"):  # a row of the left has one of the right beside it
        _tell(item.left, conditions + item.on + right, beside + in_right)
    else:
        _tell(item.left, conditions, beside)
    if item.kind in ("inner", "left"):
        _tell(item.right, conditions + item.on + left, beside + in_left)
    else:
        _tell(item.right, conditions, beside)
