"""What EXPLAIN prints of sub-selects is no SQL, and is read all the same."""

import pytest

from catbird_db.check.expressions import conjuncts, parse_expression, shape
from catbird_db.check.plan import bound_columns, parameters_in


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("(id = $1)", {"id"}),
        ("((id = (InitPlan 1).col1) AND (seq > (SubPlan 2).col1))", {"id"}),
        ("((id = $1) AND (seq = ANY ((InitPlan 3).col1)))", {"id", "seq"}),
        ("((id = $1) AND (NOT (ANY (seq = (hashed SubPlan 1).col1))))", {"id"}),
        ("((id = $1) AND EXISTS(SubPlan 2))", {"id"}),
        ("((id = $1) AND (alternatives: SubPlan 1 or hashed SubPlan 2))", None),
        ("(ROW(convo_id, epoch) > ROW($1, COALESCE($2, '0'::bigint)))", set[str]()),
        ("((kind = 'a'::text) AND (left_at IS NULL) AND (seq IS NOT NULL))", {"kind", "left_at"}),
        ("(lower(id) = $1)", {""}),
        ("((id)::text = ($1)::text)", {"id"}),
        ("((id = $1) OR (seq = $2))", set[str]()),
        ("(id <> $1)", set[str]()),
    ],
)
def test_columns_bound_by_equality_are_found(text: str, columns: set[str] | None) -> None:
    if columns is None:
        with pytest.raises(Exception, match="syntax error"):
            parse_expression(text)
    else:
        assert bound_columns(parse_expression(text)) == columns


def test_parameters_are_found_wherever_they_stand() -> None:
    text = "((id = $3) AND (ROW(a, b) > ROW($1, COALESCE($2, ''::text))))"
    assert parameters_in(parse_expression(text)) == {1, 2, 3}


def test_expressions_are_alike_whatever_their_tables_are_called() -> None:
    (predicate,) = conjuncts(parse_expression("(consumed_at IS NULL)"))
    (repeated,) = conjuncts(parse_expression("(kp.consumed_at IS NULL)"))
    (other,) = conjuncts(parse_expression("(kp.consumed_at IS NOT NULL)"))
    assert shape(predicate) == shape(repeated) != shape(other)
