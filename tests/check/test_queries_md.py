"""docs/queries.md: all of it, in order, and the same on another server."""

from check.conftest import Filled

from catbird_db.check.database import connect, examine, read_catalog, throwaway
from catbird_db.check.docs import queries_markdown
from catbird_db.check.fill import fill
from catbird_db.query import bound


def text_of(database: Filled) -> str:
    subjects = [examine(database.connection, one)[0] for one in bound()]
    return queries_markdown(database.connection, reversed(subjects), database.catalog)


def section(text: str, label: str) -> str:
    _, _, rest = text.partition(f"### {label}\n")
    return rest.partition("\n##")[0]


def test_two_servers_tell_the_same(filled: Filled) -> None:
    with throwaway() as url, connect(url) as connection:
        catalog = read_catalog(connection)
        fill(connection, catalog)
        other = text_of(Filled(connection, catalog))
    assert other == text_of(filled)


def test_every_statement_is_there_in_the_order_of_its_file(filled: Filled) -> None:
    told = [line[4:] for line in text_of(filled).splitlines() if line.startswith("### ")]
    in_order = sorted((one.statement for one in bound()), key=lambda one: (one.path, one.line))
    assert told == [one.label for one in in_order]


def test_a_page_is_told_with_its_keys_types_and_plan(filled: Filled) -> None:
    told = section(text_of(filled), "chat.members.list_members")
    assert (
        """\
The active members of a conversation, by DID.

A page of rows; `limit` is sent plus one, which says whether there is a next page. """
        """Tenant key: `convo_id`. Ordered by: `member_did`. Indexes allowed: `members_pkey`.

| parameter | type | null |
| --- | --- | --- |
| `convo_id` | text |  |
| `cursor_member_did` | text | yes |
| `limit` | bigint |  |

| column | type | null |
| --- | --- | --- |
| `convo_id` | text |  |
| `member_did` | text |  |
| `joined_at` | timestamp with time zone |  |
| `left_at` | timestamp with time zone | yes |
| `read_seq` | bigint |  |

```text
Limit
  ->  Index Scan using members_pkey on members m
"""
    ) in told


def test_an_exemption_keeps_its_reason(filled: Filled) -> None:
    told = section(text_of(filled), "chat.key_packages.delete_expired_key_packages")
    assert "Tenant key: `none` (retention, over all DIDs)." in told


def test_no_plan_has_costs(filled: Filled) -> None:
    assert "cost=" not in text_of(filled)
