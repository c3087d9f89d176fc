"""The story: seven people with ten devices, and a stranger, on one database, chapter by chapter.

Each chapter calls the public functions, shows what came of it, and puts to the test the promises
that it can. What is shown and what is checked was read back from the database.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha256

from .. import (
    CommitReceipt,
    ConflictError,
    DatabaseError,
    HistoryTrimmedError,
    KeyPackage,
    Message,
    NewMessage,
    NotAMemberError,
    NotFoundError,
    StaleEpochError,
    acknowledge_welcome,
    commit_group_change,
    consume_key_package,
    consume_key_packages,
    count_key_packages,
    create_conversation,
    create_message,
    create_messages,
    delete_messages_before,
    get_conversation,
    get_current_epoch,
    get_key_package,
    get_message,
    get_message_count,
    list_commits,
    list_conversations,
    list_members,
    list_messages,
    list_messages_since,
    list_new_messages,
    list_pending_welcomes,
    mark_read,
    remove_member,
    reset_unread_count,
    store_key_package,
    transaction,
    update_unread_count,
)
from .cast import Device, StoryError
from .evidence import Promise
from .mls import CIPHER_SUITE, LIFETIME, Commit
from .scene import Scene, listed, named, outcomes, refusal
from .stage import count, hex_of, size_of

GARDEN = "garden-club"
SEEDS = "seed-swap"

ONE_TIME_PACKAGES = 3
RETRIES = 6
MESSAGES_A_WRITER = 16
ROLLBACK_EVERY = 4
PAGE = 50
CLAIMANTS = 32
TRIMMED_AT_ONCE = 40
SEEN_WAITING_WITHIN = 5.0  # seconds
UNDISTURBED_WITHIN = 5.0

# Whether a statement waits for a lock now: pg_stat_activity has the name that each one carries.
WAITING_SQL = """
SELECT 1 FROM pg_stat_activity
 WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE $1
"""

# All bytes of MLS in the database. A spent key package is remembered by its SHA-256.
EVERYTHING_SQL = """
SELECT sha256(ciphertext) AS digest FROM messages
UNION ALL SELECT sha256(data) FROM welcomes
UNION ALL SELECT sha256(data) FROM group_infos
UNION ALL SELECT ref FROM key_packages
"""


async def tell(scene: Scene) -> None:
    """All chapters, in order.

    Raises:
        Exception: what was read could not be opened, or a call failed that must not.
    """
    for chapter in CHAPTERS:
        await chapter(scene)


async def publish_key_packages(scene: Scene) -> None:
    stage = scene.stage
    stage.chapter("Every device publishes key packages")
    stage.step(
        "store_key_packages",
        "One call a device. A key package is signed, and lets others add the device to a group "
        "while it is offline; its private keys stay where they are.",
    )
    rows: list[list[str]] = []
    for device in scene.devices:
        packages = await device.publish(
            one_time=ONE_TIME_PACKAGES, last_resort=device is not scene.grace
        )
        last_resorts = sum(package.last_resort for package in packages)
        size = sum(len(package.key_data) for package in packages)
        ref = sha256(packages[0].key_data).digest()
        rows.append([str(device), str(len(packages) - last_resorts), str(last_resorts), size_of(size), hex_of(ref)])  # fmt: skip
    stage.table(
        ["device", "one-time", "last resort", "bytes", "first ref"],
        rows,
        right=["one-time", "last resort", "bytes"],
    )


async def open_a_conversation(scene: Scene) -> None:
    pool, stage, alice = scene.pool, scene.stage, scene.alice
    stage.chapter("Alice opens a conversation, and lets the others in")
    conversation = await create_conversation(
        pool, creator_did=alice.did, convo_id=GARDEN, title="Garden club"
    )
    alice.found(GARDEN)
    stage.step(
        "create_conversation",
        f"{alice} founds “{conversation.title}”: the MLS group {conversation.id}, epoch "
        f"{conversation.current_epoch}.",
    )
    guests = [scene.bob, scene.carol, scene.dave, scene.erin]
    claimed = await consume_key_packages(
        pool,
        dids=[guest.did for guest in guests],
        cipher_suite=CIPHER_SUITE,
        convo_id=GARDEN,
    )
    own = await consume_key_package(
        pool,
        did=alice.did,
        cipher_suite=CIPHER_SUITE,
        convo_id=GARDEN,
        device_id=scene.alice_laptop.name,
    )
    packages = alice.examine([*claimed, *([own] if own else [])])
    stage.step(
        "consume_key_packages",
        f"One call claims {count(len(claimed), 'package')} of {len(guests)} people, one for each "
        "device; another call, one for Alice's laptop. All are verified.",
    )
    commit = alice.prepare(GARDEN, packages)
    receipt = await alice.submit(commit, packages, "alice-lets-them-in")
    stage.step(
        "commit_group_change",
        f"Epoch {commit.epoch} to {receipt.epoch} in one statement: a commit of "
        f"{size_of(len(commit.message))}, one Welcome of {size_of(len(commit.welcome))} for "
        f"{len(packages)} devices, a GroupInfo of {size_of(len(commit.group_info))}.",
    )
    again = await alice.submit(commit, packages, "alice-lets-them-in")
    holds = scene.check(
        Promise.ONE_RESULT,
        again == receipt,
        f"a commit sent twice: {count(len({receipt, again}), 'receipt')}",
    )
    stage.step("", "Sent again, as if the reply had been lost: the same receipt.", holds)
    joined = [device for device in scene.devices if await device.join()]
    stage.step(
        "list_pending_welcomes",
        f"{listed(joined)} find the Welcome that is sealed to their key packages, and join.",
    )
    left = [
        welcome
        for device in (alice, *guests)
        for welcome in (await list_pending_welcomes(pool, recipient_did=device.did)).items
    ]
    stage.step("acknowledge_welcome", f"{len(left)} Welcomes are left waiting.")
    await scene.agree(GARDEN)
    scene.away.add(scene.dave_laptop)
    stage.note("Then Dave shuts his laptop, until chapter 6.")


async def talk(scene: Scene) -> None:
    stage, bob = scene.stage, scene.bob
    stage.chapter("They talk; the server sees bytes")
    stage.step(
        "create_message",
        "One statement stores a message under the next seq. Each line below is what the others "
        "read by list_messages_since, and decrypted and verified.",
    )
    for device, text in (
        (scene.alice, "The greenhouse key is under the blue pot."),
        (scene.bob_tablet, "Thanks! Who waters on Sunday?"),
        (scene.carol, "I do. Tomatoes first."),
        (scene.erin, "I can take the herbs."),
        (scene.dave, "My laptop is off till Friday, but I'm here."),
    ):
        await device.send(GARDEN, text)
        await scene.all_read(GARDEN)

    batch = [
        NewMessage(ciphertext=bob.seal(GARDEN, text), message_id=f"bob-{number}")
        for number, text in enumerate(["The seeds are here:", "four Sungold,", "two Black Krim."])
    ]
    first = await bob.store_batch(GARDEN, batch)
    again = await bob.store_batch(GARDEN, batch)
    holds = scene.check(
        Promise.ONE_RESULT,
        again == first,
        f"a batch of {len(batch)} sent twice: {count(len({*first, *again}), 'message')}",
    )
    stage.step("create_messages", f"{bob} sends a batch of {len(batch)}, twice.", holds)
    await scene.all_read(GARDEN)
    await retry_a_send(scene)
    await scene.compare_unread()


async def retry_a_send(scene: Scene) -> None:
    pool, stage, alice = scene.pool, scene.stage, scene.alice_laptop
    before = await get_message_count(pool, convo_id=GARDEN)
    sealed = alice.seal(GARDEN, "Frost tonight! Cover the beds.")
    results = await asyncio.gather(
        *(alice.store(GARDEN, sealed, message_id="frost") for _ in range(RETRIES))
    )
    stored = await get_message_count(pool, convo_id=GARDEN) - before
    told = f"{count(stored, 'row')}, {count(len(set(results)), 'result')}"
    holds = scene.check(
        Promise.ONE_RESULT,
        stored == len(set(results)) == 1,
        f"a message sent {RETRIES} times at once: {told}",
    )
    stage.step(
        "create_message",
        f"{alice} has a bad connection, and sends {RETRIES} times at once: {told}.",
        holds,
    )
    await scene.all_read(GARDEN)

    async def send_as(did: str, ciphertext: bytes) -> DatabaseError | None:
        return await refusal(
            create_message(
                pool,
                convo_id=GARDEN,
                sender_did=did,
                epoch=alice.client.epoch(GARDEN),
                ciphertext=ciphertext,
                message_id="frost",
            )
        )

    by_member = await send_as(scene.bob.did, sealed)
    by_other_bytes = await send_as(alice.did, alice.seal(GARDEN, "No frost after all."))
    by_stranger = await send_as(scene.mallory.did, sealed)
    kept = await get_message(pool, convo_id=GARDEN, message_id="frost", reader_did=alice.did)
    holds = scene.check(
        Promise.TAKEN_ID,
        isinstance(by_member, ConflictError)
        and isinstance(by_other_bytes, ConflictError)
        and isinstance(by_stranger, NotAMemberError)
        and kept == results[0],
        f"a member: {named(by_member)}; other bytes: {named(by_other_bytes)}; a stranger: "
        f"{named(by_stranger)}",
    )
    stage.step(
        "create_message",
        f"Her message's id again, by Bob: {named(by_member)}; by her, with other bytes: "
        f"{named(by_other_bytes)}; by {scene.mallory}, a stranger: {named(by_stranger)}.",
        holds,
    )


async def race_two_commits(scene: Scene) -> None:
    pool, stage = scene.pool, scene.stage
    stage.chapter("Two commits, one epoch")
    epoch = await get_current_epoch(pool, convo_id=GARDEN)
    racers = {scene.bob: scene.frank, scene.carol: scene.grace}
    packages: dict[Device, list[KeyPackage]] = {}
    commits: dict[Device, Commit] = {}
    for racer, guest in racers.items():
        claimed = await consume_key_packages(
            pool, dids=[guest.did], cipher_suite=CIPHER_SUITE, convo_id=GARDEN
        )
        packages[racer] = racer.examine(claimed)
        commits[racer] = racer.prepare(GARDEN, claimed)
    stage.step(
        "commit_group_change",
        f"In epoch {epoch} {scene.bob} adds {scene.frank}, and {scene.carol} adds {scene.grace}, "
        "at the same moment.",
    )
    results = await asyncio.gather(
        *(
            racer.submit(commits[racer], packages[racer], f"{racer.client.identity} races")
            for racer in racers
        ),
        return_exceptions=True,
    )
    won = [
        racer
        for racer, result in zip(racers, results, strict=True)
        if isinstance(result, CommitReceipt)
    ]
    stale = [error for error in results if isinstance(error, StaleEpochError)]
    holds = scene.check(
        Promise.ONE_COMMIT,
        len(won) == len(stale) == 1 and stale[0].current_epoch == epoch + 1,
        f"2 at once in epoch {epoch}: {count(len(won), 'receipt')}, "
        f"{count(len(stale), 'StaleEpochError')}",
    )
    if not holds:
        raise StoryError(f"{len(won)} of 2 commits won epoch {epoch}: {results}")
    winner = won[0]
    (loser,) = racers.keys() - {winner}
    stage.step(
        "",
        f"{winner} wins, epoch {epoch + 1}. {loser} gets {named(stale[0])}"
        f"(current_epoch={stale[0].current_epoch}).",
        holds,
    )
    await find_nothing_of_the_loser(scene, racers[loser], commits[winner])

    applied = await loser.catch_up_by_commits(GARDEN)
    commit = loser.prepare(GARDEN, packages[loser])
    receipt = await loser.submit(commit, packages[loser], f"{loser.client.identity} tries again")
    read = await list_commits(pool, convo_id=GARDEN, reader_did=loser.did, from_epoch=0)
    holds = scene.check(
        Promise.ONE_COMMIT,
        [one.epoch for one in read] == list(range(receipt.epoch)),
        f"commits made in epochs {listed([one.epoch for one in read])}",
    )
    stage.step(
        "list_commits",
        f"{loser} applies {count(applied, 'commit')}, makes its own anew in epoch "
        f"{commit.epoch}, and wins: epoch {receipt.epoch}.",
        holds,
    )
    info, view = await scene.look_from_outside(GARDEN)
    holds = scene.check(
        Promise.ALL_OR_NOTHING,
        info.data == commit.group_info and info.epoch == view.epoch == receipt.epoch,
        f"then the GroupInfo is of epoch {info.epoch}",
    )
    stage.step(
        "get_group_info",
        f"{size_of(len(info.data))}, as an outsider reads it: signature and tree hash verified, "
        f"epoch {view.epoch}, {count(len(view.identities), 'device')}.",
        holds,
    )
    for guest in racers.values():
        await guest.join()
    await scene.all_read(GARDEN)
    await scene.agree(GARDEN)


async def find_nothing_of_the_loser(scene: Scene, guest: Device, won: Commit) -> None:
    members = (await list_members(scene.pool, convo_id=GARDEN)).items
    welcomes = (await list_pending_welcomes(scene.pool, recipient_did=guest.did)).items
    info, _ = await scene.look_from_outside(GARDEN)
    is_member = guest.did in {member.member_did for member in members}
    is_winners = info.data == won.group_info
    found = (
        f"{guest.owner.name} is {'a' if is_member else 'no'} member, {len(welcomes)} Welcomes "
        f"wait, the GroupInfo is {'' if is_winners else 'not '}the winner's"
    )
    holds = scene.check(
        Promise.ALL_OR_NOTHING,
        not is_member and not welcomes and is_winners,
        f"of a lost commit: {found}",
    )
    scene.stage.step("", f"What is there of the lost commit: {found}.", holds)


async def write_all_at_once(scene: Scene) -> None:
    pool, stage, reader = scene.pool, scene.stage, scene.alice_laptop
    stage.chapter("Everybody writes at once, and one reads along")
    writers = [device for device in scene.present(GARDEN) if device is not reader]
    start = reader.position[GARDEN]
    rollbacks = 0

    async def write(device: Device) -> list[Message]:
        nonlocal rollbacks
        stored: list[Message] = []
        for number in range(1, MESSAGES_A_WRITER + 1):
            sealed = device.seal(GARDEN, f"{device.client.identity} says {number}")
            if number % ROLLBACK_EVERY == 0:
                await store_and_roll_back(scene, device, sealed)
                rollbacks += 1
            stored.append(await device.store(GARDEN, sealed))
        return stored

    seen: list[int] = []
    reads = 0
    with stage.busy("writing"):
        async with asyncio.TaskGroup() as group:
            writing = [group.create_task(write(device)) for device in writers]
            is_over = False
            while not is_over:
                is_over = all(task.done() for task in writing)
                messages = await list_messages_since(
                    pool,
                    convo_id=GARDEN,
                    reader_did=reader.did,
                    after_seq=reader.position[GARDEN],
                    limit=500,
                )
                reads += 1
                reader.take_in(messages)
                seen += [message.seq for message in messages]
    acknowledged = sorted(message.seq for task in writing for message in task.result())
    holds = scene.check(
        Promise.GAPLESS,
        acknowledged == list(range(start + 1, start + 1 + len(acknowledged))),
        f"{len(acknowledged)} messages and {rollbacks} rollbacks are seq {acknowledged[0]} to "
        f"{acknowledged[-1]}",
    )
    stage.step(
        "create_message",
        f"{count(len(writers), 'device')} send {len(acknowledged)} messages; {rollbacks} of them "
        f"first in a transaction that rolls back. Seq {acknowledged[0]} to {acknowledged[-1]}.",
        holds,
    )
    holds = scene.check(
        Promise.NONE_MISSED,
        seen == acknowledged,
        f"{len(writers)} writers and a reader along: {len(seen)} of {len(acknowledged)} messages",
    )
    stage.step(
        "list_messages_since",
        f"{reader} reads along from the last seq it saw: {reads} reads, {len(seen)} of "
        f"{len(acknowledged)} messages, each decrypted as it comes.",
        holds,
    )
    with stage.busy("decrypting"):
        await scene.all_read(GARDEN, show=False)
    await scene.compare_unread()


async def store_and_roll_back(scene: Scene, device: Device, sealed: bytes) -> None:
    class UndoError(Exception):
        pass

    with suppress(UndoError):
        async with transaction(scene.pool) as tx:
            await create_message(
                tx,
                convo_id=GARDEN,
                sender_did=device.did,
                epoch=device.client.epoch(GARDEN),
                ciphertext=sealed,
            )
            raise UndoError


async def come_back_online(scene: Scene) -> None:
    pool, stage = scene.pool, scene.stage
    carol, laptop = scene.carol, scene.dave_laptop
    stage.chapter("Dave opens his laptop again")
    await create_conversation(pool, creator_did=carol.did, convo_id=SEEDS, title="Seed swap")
    carol.found(SEEDS)
    packages = carol.examine(
        await consume_key_packages(
            pool,
            dids=[scene.bob.did, scene.dave.did],
            cipher_suite=CIPHER_SUITE,
            convo_id=SEEDS,
        )
    )
    await carol.submit(carol.prepare(SEEDS, packages), packages, "carol-swaps-seeds")
    for device in (scene.bob, scene.bob_tablet, scene.dave):
        await device.join()
    stage.step(
        "create_conversation",
        f"Meanwhile {carol} has opened “Seed swap” with Bob and Dave, on all their devices.",
    )
    for device, text in (
        (carol, "I have too many sunflower seeds."),
        (scene.bob, "I'll trade you for beans!"),
    ):
        await device.send(SEEDS, text)
        await scene.all_read(SEEDS)

    waiting = await laptop.join()
    scene.away.clear()
    stage.step(
        "list_pending_welcomes",
        f"{laptop} is back: {count(len(waiting), 'Welcome')} waited for it ({listed(waiting)}).",
    )
    news = await list_new_messages(
        pool, reader_did=laptop.did, positions=laptop.position, limit_per_conversation=PAGE
    )
    opened = [text for one in news for text in laptop.take_in(one.messages)]
    told = [
        f"{len(one.messages)}{' and more' if one.more else ''} in {one.convo_id}" for one in news
    ]
    stage.step("list_new_messages", f"What is new, in one statement: {listed(told)}.")
    for one in news:
        if one.more:
            opened += await laptop.catch_up(one.convo_id, limit=PAGE)
    stage.step(
        "list_messages_since",
        f"It reads on in pages of {PAGE}, applies the commits where they stand, and decrypts "
        f"{count(len(opened), 'message')} in all.",
    )
    await read_backwards(scene, laptop)
    await scene.agree(GARDEN)
    await scene.agree(SEEDS)


async def read_backwards(scene: Scene, device: Device) -> None:
    pool = scene.pool
    pages: list[list[Message]] = []
    cursor: str | None = None
    while not pages or cursor:
        page = await list_messages(
            pool, convo_id=GARDEN, reader_did=device.did, limit=PAGE, cursor=cursor
        )
        pages.append(page.items)
        cursor = page.next_cursor
    backwards = [message for items in pages for message in items]
    forwards = await scene.read_all(GARDEN, device.did)
    conversation = await get_conversation(pool, convo_id=GARDEN)
    last_seq = conversation.last_seq if conversation else 0
    is_whole = scene.check(
        Promise.NONE_MISSED,
        backwards[::-1] == forwards and len(forwards) == device.position[GARDEN] == last_seq,
        f"{len(forwards)} of {last_seq} after being offline, {len(backwards)} by cursor",
    )
    is_gapless = scene.check(
        Promise.GAPLESS,
        [message.seq for message in forwards] == list(range(1, last_seq + 1)),
        f"read back whole: {len(forwards)} of seq 1 to {last_seq}",
    )
    scene.stage.step(
        "list_messages",
        f"Newest first, by cursor: {count(len(pages), 'page')}, {len(backwards)} messages, the "
        f"same {len(forwards)} that came oldest first.",
        is_whole and is_gapless,
    )


async def count_unread(scene: Scene) -> None:
    pool, stage, laptop = scene.pool, scene.stage, scene.dave_laptop
    stage.chapter("Who has read what")
    harvest = [
        NewMessage(ciphertext=laptop.seal(GARDEN, f"Harvest, day {n}")) for n in range(1, 21)
    ]
    stored = await laptop.store_batch(GARDEN, harvest)
    await scene.all_read(GARDEN, show=False)
    stage.step(
        "create_messages",
        f"{laptop} sends the {len(stored)} notes that it made offline, as one batch.",
    )
    marks = {
        scene.alice: None,
        scene.bob: stored[-1].seq,
        scene.carol: stored[7].seq,
        scene.grace: 3,
    }
    rows: list[list[str]] = []
    said_as_listed = True
    for device in (scene.alice, scene.bob, scene.carol, scene.dave, scene.grace):
        before = (await scene.summaries(device.did))[GARDEN].unread_count
        call, said = "", before
        if device is scene.alice:
            call = "reset_unread_count"
            said = await reset_unread_count(pool, convo_id=GARDEN, member_did=device.did)
            scene.world.unread.mark(GARDEN, device.did, stored[-1].seq)
        elif seq := marks.get(device):
            call = f"mark_read(seq={seq})"
            said = await mark_read(pool, convo_id=GARDEN, member_did=device.did, seq=seq)
            scene.world.unread.mark(GARDEN, device.did, seq)
        after = (await scene.summaries(device.did))[GARDEN].unread_count
        said_as_listed &= said == after
        rows.append([str(device.owner), str(before), call, str(after)])
    stage.table(["member", "unread", "call", "then"], rows, right=["unread", "then"])
    scene.check(Promise.UNREAD, said_as_listed, f"{len(rows)} calls say what the list then says")
    stage.note("What one sends oneself counts as read, and a mark never moves back.")
    await scene.compare_unread()


async def remove_somebody(scene: Scene) -> None:
    pool, stage = scene.pool, scene.stage
    alice, erin = scene.alice, scene.erin
    stage.chapter("Erin moves away")
    scene.world.removed.add(erin.did)
    async with transaction(pool) as tx:
        news = await alice.send(GARDEN, "Erin has moved. Who takes the herbs?", db=tx)
        await remove_member(tx, convo_id=GARDEN, member_did=erin.did)
        sending = asyncio.create_task(refusal(erin.send(GARDEN, "One last thing…")))
        waited = await seen_waiting(scene, "chat.messages.append_message", sending)
    refused = await sending
    scene.away.add(erin)
    holds = scene.check(
        Promise.REMOVED,
        waited and isinstance(refused, NotAMemberError),
        f"a send that waited for the removal: {named(refused)}",
    )
    stage.step(
        "remove_member",
        f"In one transaction {alice} writes, and removes her. Before it commits {erin} sends: "
        f"pg_stat_activity shows it {'waiting for the lock' if waited else 'not waiting'}. Then "
        f"the removal commits, and her send gets {named(refused)}.",
        holds,
    )
    await scene.all_read(GARDEN)
    tried = await try_to_get_in(scene, erin.did, message_id=news.id)
    later = [
        message
        for message in await scene.read_all(GARDEN, alice.did, after_seq=news.seq)
        if message.sender_did == erin.did
    ]
    told = f"{outcomes(tried.values())}; {len(later)} messages of hers"
    holds = scene.check(
        Promise.REMOVED,
        all(isinstance(one, NotAMemberError) for one in tried.values()) and not later,
        f"then {told}",
    )
    stage.step(f"{len(tried)} calls", f"Then she tries to read and to send: {told}.", holds)
    stage.note(
        "Her leaf stays in the MLS tree, as rfc9420 1.3 cannot verify the UpdatePath of a Remove: "
        "it is the data layer that keeps her out."
    )
    await scene.compare_unread()


async def seen_waiting(
    scene: Scene, statement: str, task: "asyncio.Task[DatabaseError | None]"
) -> bool:
    """Whether a statement is seen waiting for a lock before its task is done."""
    deadline = time.monotonic() + SEEN_WAITING_WITHIN
    while not task.done() and time.monotonic() < deadline:
        if await scene.ask(WAITING_SQL, f"%/* {statement} */%"):
            return True
        await asyncio.sleep(0.01)
    return False


async def run_out_of_key_packages(scene: Scene) -> None:
    pool, stage, bob, carol = scene.pool, scene.stage, scene.bob, scene.carol
    stage.chapter("Key packages run out")
    for device in (bob, scene.bob_tablet):
        await device.publish(one_time=8, last_resort=False)
    available = await count_key_packages(pool, did=bob.did, cipher_suite=CIPHER_SUITE)
    async with transaction(pool) as tx:
        first = await consume_key_package(tx, did=bob.did, cipher_suite=CIPHER_SUITE)
        others = asyncio.gather(
            *(
                consume_key_package(pool, did=bob.did, cipher_suite=CIPHER_SUITE)
                for _ in range(CLAIMANTS - 1)
            )
        )
        done, _ = await asyncio.wait([others], timeout=UNDISTURBED_WITHIN)
    results = [first, *await others]
    left = await count_key_packages(pool, did=bob.did, cipher_suite=CIPHER_SUITE)
    claimed = carol.examine(package for package in results if package)
    once = [package for package in claimed if not package.last_resort]
    different = len({package.ref for package in once})
    last = len(claimed) - len(once)
    told = f"{different} different ones, then {last} times a last resort"
    is_one_each = scene.check(
        Promise.ONE_CLAIMANT,
        len(once) == different == available and left == 0,
        f"{CLAIMANTS} claims at once for {available} packages: {told}",
    )
    is_last = scene.check(
        Promise.LAST_RESORT,
        last == CLAIMANTS - available,
        f"{last} claims got it, {results.count(None)} got nothing",
    )
    stage.step(
        "consume_key_package",
        f"{bob.owner}'s devices have {available} packages left. {CLAIMANTS} claims at once get "
        f"{told}. One of them commits last, and the others {'pass over' if done else 'waited for'} "
        f"what it holds. Now {left} are left.",
        is_one_each and is_last,
    )
    await store_a_spent_one(scene, bob, once[0])
    await join_twice_by_last_resort(scene, bob)

    people = sorted({device.did for device in scene.devices})
    drained, served = 0, list[KeyPackage]()
    while not served or any(not package.last_resort for package in served):
        served = carol.examine(
            await consume_key_packages(pool, dids=people, cipher_suite=CIPHER_SUITE)
        )
        drained += sum(not package.last_resort for package in served)
    by = {(package.did, package.device_id) for package in served}
    without = [device for device in scene.devices if (device.did, device.name) not in by]
    holds = scene.check(
        Promise.LAST_RESORT,
        without == [scene.grace],
        f"in the end {len(served)} of {len(scene.devices)} devices have it to give",
    )
    stage.step(
        "consume_key_packages",
        f"Everybody's are claimed, {drained} more. In the end {len(served)} devices give their "
        f"last resort, and {listed(without)}, which published none, gives nothing.",
        holds,
    )


async def store_a_spent_one(scene: Scene, device: Device, spent: KeyPackage) -> None:
    pool, did = scene.pool, device.did
    stored = await store_key_package(
        pool,
        did=did,
        cipher_suite=CIPHER_SUITE,
        key_data=spent.key_data,
        expires_at=datetime.now(UTC) + LIFETIME,
        device_id=spent.device_id,
    )
    left = await count_key_packages(pool, did=did, cipher_suite=CIPHER_SUITE)
    served = await get_key_package(pool, did=did, cipher_suite=CIPHER_SUITE)
    holds = scene.check(
        Promise.SPENT,
        stored.consumed_at is not None
        and left == 0
        and served is not None
        and served.ref != spent.ref,
        f"stored again: {'still' if stored.consumed_at else 'not'} spent, {left} available",
    )
    scene.stage.step(
        "store_key_package",
        f"A careless client stores {hex_of(spent.ref)} again, which is spent: remembered by its "
        f"SHA-256, and {left} are available.",
        holds,
    )


async def join_twice_by_last_resort(scene: Scene, guest: Device) -> None:
    pool = scene.pool
    refs: list[set[bytes]] = []
    hosts = [scene.carol, scene.frank]
    for host in hosts:
        convo_id = f"{host.owner.name}-and-{guest.owner.name}".lower()
        await create_conversation(pool, creator_did=host.did, convo_id=convo_id)
        host.found(convo_id)
        packages = host.examine(
            await consume_key_packages(
                pool, dids=[guest.did], cipher_suite=CIPHER_SUITE, convo_id=convo_id
            )
        )
        refs.append({package.ref for package in packages if package.last_resort})
        await host.submit(host.prepare(convo_id, packages), packages, "just-us")
        for device in (scene.bob, scene.bob_tablet):
            await device.join()
        await host.send(convo_id, f"Hi {guest.owner.name}, just the two of us.")
        await scene.all_read(convo_id, show=False)
        await scene.agree(convo_id, show=False)
    holds = scene.check(
        Promise.LAST_RESORT,
        refs[0] == refs[1] and len(refs[0]) == 2,
        f"{len(refs)} groups joined by the same {len(refs[0] & refs[1])}",
    )
    scene.stage.step(
        "commit_group_change",
        f"{listed(hosts)} each open a chat with him by the last resorts {listed([hex_of(ref) for ref in sorted(refs[0])])}: "
        "his devices join both groups by the same packages, and decrypt what is said there.",
        holds,
    )


async def let_a_stranger_try(scene: Scene) -> None:
    pool, stage, mallory = scene.pool, scene.stage, scene.mallory.did
    stage.chapter("Mallory is no member, and knows every id")
    before = await what_could_be_changed(scene)
    tried = await try_to_get_in(scene, mallory, message_id="frost")
    page = await list_messages(pool, convo_id=GARDEN, reader_did=scene.alice.did, limit=1)
    tried["list_messages with Alice's cursor"] = await refusal(
        list_messages(pool, convo_id=GARDEN, reader_did=mallory, cursor=page.next_cursor)
    )
    unknown = {
        "mark_read": mark_read(pool, convo_id=GARDEN, member_did=mallory, seq=1),
        "reset_unread_count": reset_unread_count(pool, convo_id=GARDEN, member_did=mallory),
        "update_unread_count": update_unread_count(
            pool, convo_id=GARDEN, member_did=mallory, increment=1
        ),
    }
    not_found = {name: await refusal(call) for name, call in unknown.items()}
    stage.step(f"{len(tried)} calls", f"{listed(list(tried))}: {outcomes(tried.values())}.")
    stage.step(
        f"{len(not_found)} calls", f"{listed(list(not_found))}: {outcomes(not_found.values())}."
    )
    conversations = (await list_conversations(pool, member_did=mallory)).items
    welcomes = (await list_pending_welcomes(pool, recipient_did=mallory)).items
    acknowledged = await acknowledge_welcome(
        pool, convo_id=GARDEN, recipient_did=mallory, key_package_ref=b"\0" * 32
    )
    is_unchanged = before == await what_could_be_changed(scene)
    holds = scene.check(
        Promise.STRANGER,
        all(isinstance(one, NotAMemberError) for one in tried.values())
        and all(isinstance(one, NotFoundError) for one in not_found.values())
        and not (conversations or welcomes or acknowledged)
        and is_unchanged,
        f"{outcomes([*tried.values(), *not_found.values()])}; "
        f"{len(conversations) + len(welcomes)} rows shown, "
        f"{'nothing' if is_unchanged else 'something'} changed",
    )
    stage.step(
        "3 calls",
        f"list_conversations shows {len(conversations)}, list_pending_welcomes {len(welcomes)}; "
        f"acknowledge_welcome: {acknowledged}. {'Nothing' if is_unchanged else 'Something'} has "
        "changed.",
        holds,
    )


async def try_to_get_in(
    scene: Scene, did: str, *, message_id: str
) -> dict[str, DatabaseError | None]:
    """Each way of reading and writing the garden club, as somebody who must not."""
    pool, data = scene.pool, b"not for this group"
    epoch = await get_current_epoch(pool, convo_id=GARDEN)
    calls: dict[str, Awaitable[object]] = {
        "get_message": get_message(pool, convo_id=GARDEN, message_id=message_id, reader_did=did),
        "list_messages": list_messages(pool, convo_id=GARDEN, reader_did=did),
        "list_messages_since": list_messages_since(
            pool, convo_id=GARDEN, reader_did=did, after_seq=0
        ),
        "list_new_messages": list_new_messages(pool, reader_did=did, positions={GARDEN: 0}),
        "list_commits": list_commits(pool, convo_id=GARDEN, reader_did=did, from_epoch=0),
        "create_message": create_message(
            pool, convo_id=GARDEN, sender_did=did, epoch=epoch, ciphertext=data
        ),
        "create_messages": create_messages(
            pool,
            convo_id=GARDEN,
            sender_did=did,
            epoch=epoch,
            messages=[NewMessage(ciphertext=data)],
        ),
        "commit_group_change": commit_group_change(
            pool,
            convo_id=GARDEN,
            sender_did=did,
            message_id="let me in",
            expected_epoch=epoch,
            commit=data,
            add_dids=[did],
        ),
    }
    return {name: await refusal(call) for name, call in calls.items()}


async def what_could_be_changed(scene: Scene) -> list[object]:
    return [
        await get_conversation(scene.pool, convo_id=GARDEN),
        (await list_members(scene.pool, convo_id=GARDEN)).items,
        await scene.look_from_outside(GARDEN),
    ]


async def account_for_every_byte(scene: Scene) -> None:
    stage, ledger = scene.stage, scene.world.ledger
    stage.chapter("Is every byte accounted for?")
    stage.step(
        "",
        "What the database holds, by SHA-256, beside what the devices stored, and what its "
        "receivers have read back and opened:",
    )
    found = {bytes(row["digest"]) for row in await scene.ask(EVERYTHING_SQL)}
    unopened = dict(ledger.unopened())
    rows: list[list[str]] = []
    for kind, opened in (
        ("messages", "decrypted by every other device"),
        ("commits", "applied by the members, verified by who joins"),
        ("Welcomes", "joined from by every device added"),
        ("GroupInfos", "signature and tree verified"),
        ("key packages", "signatures and lifetime verified"),
    ):
        deposits = {key: one for key, one in ledger.deposits.items() if one.kind == kind}
        rows.append(
            [
                kind,
                f"{len(deposits):,}",
                size_of(sum(one.size for one in deposits.values())),
                opened,
                f"{sum(map(ledger.openings, deposits)):,}",
                str(len(deposits.keys() & unopened.keys())),
            ]
        )
    stage.table(
        ["", "stored", "bytes", "opened", "times", "missing"],
        rows,
        right=["stored", "bytes", "times", "missing"],
    )
    # A GroupInfo makes room for the next one; all else is still there.
    replaced = {key for key, one in ledger.deposits.items() if one.kind == "GroupInfos"} - found
    strange = found ^ (ledger.deposits.keys() - replaced)
    scene.check(
        Promise.EVERY_BYTE,
        not unopened and not strange,
        f"{len(found)} pieces opened {sum(map(ledger.openings, found)):,} times; {len(unopened)} "
        f"not by all receivers, {len(strange)} lost or of unknown origin",
    )


async def trim_the_history(scene: Scene) -> None:
    pool, stage, carol = scene.pool, scene.stage, scene.carol
    stage.chapter("Retention, and a phone restored from a backup")
    before = await scene.read_all(GARDEN, carol.did)
    commits = await list_commits(pool, convo_id=GARDEN, reader_did=carol.did, from_epoch=0)
    cut, read_before = before[-1].seq * 2 // 3, 5
    batches = [TRIMMED_AT_ONCE]
    while batches[-1] == TRIMMED_AT_ONCE:
        batches.append(
            await delete_messages_before(pool, convo_id=GARDEN, seq=cut, limit=TRIMMED_AT_ONCE)
        )
    removed = sum(batches[1:])
    left = await get_message_count(pool, convo_id=GARDEN)
    stage.step(
        "delete_messages_before",
        f"Those below seq {cut} go: {removed} messages, {TRIMMED_AT_ONCE} at a time. {left} stay.",
    )
    stale = await refusal(
        list_messages_since(pool, convo_id=GARDEN, reader_did=carol.did, after_seq=read_before)
    )
    trimmed_seq = stale.trimmed_seq if isinstance(stale, HistoryTrimmedError) else 0
    scene.world.unread.trimmed[GARDEN] = trimmed_seq
    (news,) = await list_new_messages(pool, reader_did=carol.did, positions={GARDEN: read_before})
    rest = await scene.read_all(GARDEN, carol.did, after_seq=trimmed_seq)
    holds = scene.check(
        Promise.RETENTION,
        0 < trimmed_seq < cut
        and news.trimmed
        and rest == [message for message in before if message.seq > trimmed_seq],
        f"{removed} removed; a reader at seq {read_before}: {named(stale)}",
    )
    stage.step(
        "list_messages_since",
        f"{carol.owner}'s backup had read up to seq {read_before}: {named(stale)}"
        f"(trimmed_seq={trimmed_seq}). From there on {len(rest)} messages come.",
        holds,
    )
    kept = await list_commits(pool, convo_id=GARDEN, reader_did=carol.did, from_epoch=0)
    holds = scene.check(
        Promise.RETENTION,
        kept == commits and removed + left == len(before),
        f"{len(kept)} of {len(commits)} commits kept",
    )
    stage.step("list_commits", f"{len(kept)} of {len(commits)} commits are still there.", holds)


async def look_at_the_list(scene: Scene) -> None:
    scene.stage.chapter("What Bob sees when he opens the app")
    await scene.compare_unread()
    scene.check(
        Promise.UNREAD,
        not scene.unread_wrong,
        "; ".join(scene.unread_wrong)
        or f"{scene.unread_compared} counts are what a recount of the messages gives",
    )
    page = await list_conversations(scene.pool, member_did=scene.bob.did)
    scene.stage.table(
        ["conversation", "title", "epoch", "messages", "unread"],
        [
            [one.id, one.title or "", str(one.current_epoch), str(one.app_count), str(one.unread_count)]
            for one in page.items
        ],
        right=["epoch", "messages", "unread"],
    )  # fmt: skip


CHAPTERS: tuple[Callable[[Scene], Awaitable[None]], ...] = (
    publish_key_packages,
    open_a_conversation,
    talk,
    race_two_commits,
    write_all_at_once,
    come_back_online,
    count_unread,
    remove_somebody,
    run_out_of_key_packages,
    let_a_stranger_try,
    account_for_every_byte,
    trim_the_history,
    look_at_the_list,
)
