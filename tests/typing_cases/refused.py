"""What no checker lets through: each line says by which rule. Read by test_typing.py."""

# fmt: off
# ruff: noqa: B018

import asyncpg

from catbird_db import (
    Connection,
    NewMessage,
    Pool,
    Settings,
    consume_key_packages,
    create_message,
    create_messages,
    get_conversation,
    get_message,
    health_check,
    list_messages,
    open_pool,
    run_transaction,
    transaction,
)


async def arguments(pool: Pool) -> None:
    await get_message(pool, "c", "m", "d")  # error: reportCallIssue
    await get_message(pool, convo_id="c", message_id="m")  # error: reportCallIssue
    await get_message(pool, convo_id="c", message_id="m", reader_did="d", more=1)  # error: reportCallIssue
    await get_message(pool, convo_id=1, message_id="m", reader_did="d")  # error: reportArgumentType
    await get_message(pool, convo_id=None, message_id="m", reader_did="d")  # error: reportArgumentType
    await get_message(pool, convo_id=b"c", message_id="m", reader_did="d")  # error: reportArgumentType
    await get_message(convo_id="c", message_id="m", reader_did="d")  # error: reportCallIssue
    await get_message(db=pool, convo_id="c", message_id="m", reader_did="d")  # error: reportCallIssue
    await list_messages(pool, convo_id="c", reader_did="d", limit="50")  # error: reportArgumentType
    await list_messages(pool, convo_id="c", reader_did="d", cursor=50)  # error: reportArgumentType
    await create_message(pool, convo_id="c", sender_did="d", epoch=0, ciphertext="text")  # error: reportArgumentType
    await create_message(pool, convo_id="c", sender_did="d", epoch=0, ciphertext=b"", message_type="commit")  # error: reportArgumentType
    await create_messages(pool, convo_id="c", sender_did="d", epoch=0, messages=[b""])  # error: reportArgumentType
    await consume_key_packages(pool, dids=[1], cipher_suite=1)  # error: reportArgumentType
    NewMessage(ciphertext="text")  # error: reportArgumentType
    NewMessage(b"ciphertext")  # error: reportCallIssue
    NewMessage()  # error: reportCallIssue


async def executors(pool: Pool, raw: asyncpg.Connection, settings: Settings) -> None:
    await get_conversation(raw, convo_id="c")  # error: reportArgumentType
    await get_conversation(settings, convo_id="c")  # error: reportArgumentType
    await get_conversation(None, convo_id="c")  # error: reportArgumentType
    await get_conversation("postgresql://", convo_id="c")  # error: reportArgumentType
    transaction(raw)  # error: reportArgumentType
    async with transaction(pool, isolation="chaos"):  # error: reportArgumentType
        pass
    async with transaction(pool) as tx:
        await health_check(tx)  # error: reportArgumentType
    open_pool("postgresql://")  # error: reportArgumentType


async def results(pool: Pool) -> None:
    get_conversation(pool, convo_id="c")  # error: reportUnusedCoroutine
    (await get_conversation(pool, convo_id="c")).title  # error: reportOptionalMemberAccess
    page = await list_messages(pool, convo_id="c", reader_did="d")
    page.items[0].seq = 1  # error: reportAttributeAccessIssue
    page.items[0].sequence  # error: reportUnknownMemberType, reportAttributeAccessIssue
    page.items = []  # error: reportAttributeAccessIssue

    async def body(tx: Connection, more: int) -> None: ...

    await run_transaction(pool, body)  # error: reportArgumentType
