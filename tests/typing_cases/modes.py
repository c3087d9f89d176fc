"""What a call of each mode gives, and what a transaction and a pool are. Read by test_typing.py."""

# fmt: off

from typing import reveal_type

from catbird_db import (
    Connection,
    Pool,
    get_conversation,
    get_current_epoch,
    health_check,
    list_conversations,
    list_messages,
    list_messages_since,
    open_pool,
    remove_member,
    run_transaction,
    transaction,
)
from catbird_db.chat.members import add_member
from catbird_db.chat.messages import delete_messages_before, lock_conversation
from catbird_db.query import query
from catbird_db.types import ConvoId


@query
async def find_title(db: Pool | Connection, /, *, convo_id: ConvoId) -> str | None: ...


async def each_mode(pool: Pool) -> None:
    reveal_type(await add_member(pool, convo_id="c", member_did="d"))  # Member
    reveal_type(await get_conversation(pool, convo_id="c"))  # Conversation | None
    reveal_type(await list_messages_since(pool, convo_id="c", reader_did="d", after_seq=0))  # list[Message]
    page = await list_messages(pool, convo_id="c", reader_did="d")
    reveal_type(page)  # Page[Message]
    reveal_type(page.items)  # list[Message]
    reveal_type(page.items[0].seq)  # int
    reveal_type(page.next_cursor)  # str | None
    reveal_type((await list_conversations(pool, member_did="d")).items[0].unread_count)  # int
    reveal_type(await get_current_epoch(pool, convo_id="c"))  # int
    reveal_type(await find_title(pool, convo_id="c"))  # str | None
    reveal_type(await delete_messages_before(pool, convo_id="c", seq=1))  # int
    reveal_type(await remove_member(pool, convo_id="c", member_did="d"))  # bool
    reveal_type(await lock_conversation(pool, convo_id="c"))  # None


async def each_executor() -> None:
    async with open_pool() as pool:
        reveal_type(pool)  # Pool
        reveal_type(await health_check(pool))  # Health
        async with transaction(pool, isolation="serializable", readonly=True) as tx:
            reveal_type(tx)  # Connection
            await get_conversation(tx, convo_id="c")
            async with transaction(tx) as savepoint:
                reveal_type(savepoint)  # Connection
        async with pool.connection() as connection:
            reveal_type(connection)  # Connection
            await get_conversation(connection, convo_id="c")

        async def body(tx: Connection) -> int:
            return await get_current_epoch(tx, convo_id="c")

        reveal_type(await run_transaction(pool, body))  # int
