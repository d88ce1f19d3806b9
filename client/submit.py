"""From plans to committed jobs: hash, declare, upload, submit, in few round trips.

A refusal that says that a file or folder is not known any more (the manager was replaced, a folder
changed meanwhile) sends the plan round once more; any other is the caller's.
"""

import itertools
import os
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from blake3 import blake3
from msgspec import Struct

from wqueue.exchange import Group, Request
from wqueue.hashing import Hasher, OnHashed, identity
from wqueue.protocol.codec import encode_spec
from wqueue.protocol.errors import Refused, RemoteProtocolError, UsageError, WqueueError
from wqueue.protocol.limits import SPEC_INLINE_BYTES, SPEC_MAX_BYTES
from wqueue.protocol.messages import (
    Declare,
    Declared,
    FileIdentity,
    FileRef,
    JobSpec,
    Submit,
    Submitted,
)
from wqueue.spec import Plan, Source
from wqueue.wire import Connection, boot_id

DECLARE_FILES_MAX = 400
"""Files named in one Declare, so that it stays near a batch's size."""

DECLARES_MAX = 8
"""Declares that may be unanswered: enough to keep the line busy, little to keep in memory."""

SUBMITS_MAX = 2000
"""Submissions that may be unanswered."""

SUBMIT_BYTES_MAX = 8 * 1024 * 1024
"""Bytes of descriptions that may be unanswered."""

PLANS_AT_ONCE = 500
"""Plans whose files are declared together."""

TRIES_MAX = 3
"""How often a plan goes round before its refusal is believed."""


class Taken(Struct, frozen=True):
    """A plan that the manager has committed; `keeps_outputs` says that we must fetch them."""

    plan: Plan
    job: int
    job_uid: bytes
    keeps_outputs: bool


class _Entry:
    """One plan on its way: what it is submitted as, and the request that does it."""

    __slots__ = ("keeps_outputs", "plan", "request")

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.keeps_outputs = False
        self.request: Request | None = None

    @property
    def error(self) -> WqueueError | None:
        """Give what the manager has against it."""
        return self.request.error if self.request is not None else None


class _Facts:
    """What is known of the files and folders of some plans."""

    def __init__(self) -> None:
        self.files: dict[Source, FileRef] = {}
        self.folders: dict[bytes, FileIdentity] = {}
        self.shared: set[bytes] = set()


class Submitter:
    """Submits plans over one connection. Thread-safe."""

    def __init__(self, connection: Connection, hasher: Hasher) -> None:
        self._connection = connection
        self._hasher = hasher

    def submit(
        self, plans: Iterable[Plan], *, watch: bool, on_hashed: OnHashed | None = None
    ) -> list[Taken]:
        """Submit plans in order; returns when all are committed, raises the first refusal."""
        entries = self._send_all((_Entry(plan) for plan in plans), watch, on_hashed, True)
        for tries in range(1, TRIES_MAX):
            again = [entry for entry in entries if _is_worth_repeating(entry.error)]
            if not again:
                break
            # What was refused was never committed, so it comes again as a new submission. A folder
            # that changes all the time cannot be proven shared: the last try does without.
            self._send_all(again, watch, on_hashed, tries < TRIES_MAX - 1)
        return [_taken(entry) for entry in entries]

    def _send_all(
        self,
        entries: Iterable[_Entry],
        watch: bool,
        on_hashed: OnHashed | None,
        may_share: bool,
    ) -> list[_Entry]:
        group = Group()
        sent: list[_Entry] = []
        unanswered_bytes = 0
        rest = iter(entries)
        while some := list(itertools.islice(rest, PLANS_AT_ONCE)):
            unanswered_bytes += self._send(some, group, watch, on_hashed, may_share)
            sent += some
            room = SUBMITS_MAX - PLANS_AT_ONCE
            if unanswered_bytes > SUBMIT_BYTES_MAX:
                room = unanswered_bytes = 0
            self._wait(group, room)
        self._wait(group, 0)
        return sent

    def _wait(self, group: Group, room: int) -> None:
        self._connection.wait_for(lambda: group.open <= room, None)
        if group.error is not None and not _is_worth_repeating(group.error):
            raise group.error

    def _send(
        self,
        entries: list[_Entry],
        group: Group,
        watch: bool,
        on_hashed: OnHashed | None,
        may_share: bool,
    ) -> int:
        # Describes and submits; gives the bytes of all descriptions.
        facts = self._learn([entry.plan for entry in entries], on_hashed, may_share)
        connection, exchange = self._connection, self._connection.exchange
        requests = []
        size = 0
        for entry in entries:
            blob = encode_spec(self._describe(entry, facts))
            size += len(blob)
            number = exchange.next_number()
            digest = self._upload(blob) if len(blob) > SPEC_INLINE_BYTES else b""
            spec = b"" if digest else blob
            entry.request = Request(
                Submit(number, make_submission_id(), spec, digest, watch), group
            )
            requests.append((number, entry.request))
        connection.ask(requests)
        return size

    def _describe(self, entry: _Entry, facts: _Facts) -> JobSpec:
        plan = entry.plan
        files = [facts.files[source] for source in plan.sources]
        entry.keeps_outputs = bool(plan.folder) and plan.folder not in facts.shared
        return plan.spec(files, facts.folders.get(plan.folder), keeps_outputs=entry.keeps_outputs)

    # --- files and folders --------------------------------------------------------------------

    def _learn(self, plans: list[Plan], on_hashed: OnHashed | None, may_share: bool) -> _Facts:
        facts = _Facts()
        sources = list(dict.fromkeys(source for plan in plans for source in plan.sources))
        folders = dict.fromkeys(plan.folder for plan in plans if plan.folder)
        if sources:
            refs = self._hasher.refs(sources, on_hashed)
            in_place = self._declare(refs, [source.content for source in sources])
            for source, ref, stays in zip(sources, refs, in_place, strict=True):
                facts.files[source] = ref if stays else _uploaded(ref)
        if may_share:
            for folder in folders:
                facts.folders[folder] = existing_folder(folder)
                if self._is_shared(facts.folders[folder]):
                    facts.shared.add(folder)
        return facts

    def _upload(self, blob: bytes) -> bytes:
        if len(blob) > SPEC_MAX_BYTES:
            raise UsageError(
                f"the job's description has {len(blob)} bytes; {SPEC_MAX_BYTES} are allowed: "
                "submit it in several jobs"
            )
        digest = blake3(blob).digest()
        self._declare([FileRef(digest, len(blob))], [blob])
        return digest

    def _declare(self, refs: list[FileRef], contents: list[bytes]) -> list[bool]:
        # Sees to it that the manager has every file; says which it reads in place.
        in_place: list[bool] = []
        window: deque[tuple[Request, list[bytes]]] = deque()
        offers = self._connection.offers
        try:
            for first in range(0, len(refs), DECLARE_FILES_MAX):
                some = refs[first : first + DECLARE_FILES_MAX]
                texts = contents[first : first + DECLARE_FILES_MAX]
                offers.add(
                    (ref.digest, ref.in_place or text)
                    for ref, text in zip(some, texts, strict=True)
                )
                number = self._connection.exchange.next_number()
                request = Request(Declare(number, some))
                window.append((request, [ref.digest for ref in some]))
                self._connection.ask([(number, request)])
                while len(window) >= DECLARES_MAX:
                    in_place += self._declared(*window.popleft())
            while window:
                in_place += self._declared(*window.popleft())
        finally:
            for _, digests in window:
                offers.withdraw(digests)
        return in_place

    def _declared(self, request: Request, digests: list[bytes]) -> list[bool]:
        try:
            reply = self._connection.answer_of(request)
        finally:
            self._connection.offers.withdraw(digests)
        assert isinstance(reply, Declared), reply
        stays = set(reply.in_place)
        return [position in stays for position in range(len(digests))]

    def _is_shared(self, folder: FileIdentity) -> bool:
        number = self._connection.exchange.next_number()
        request = Request(Declare(number, [], folder))
        self._connection.ask([(number, request)])
        reply = self._connection.answer_of(request)
        return isinstance(reply, Declared) and reply.is_directory_shared


def _is_worth_repeating(error: WqueueError | None) -> bool:
    return isinstance(error, Refused) and error.code in ("unknown_file", "not_shared")


def _taken(entry: _Entry) -> Taken:
    if entry.error is not None:
        raise entry.error
    reply = entry.request.reply if entry.request is not None else None
    if not isinstance(reply, Submitted):
        raise RemoteProtocolError(f"a Submit was answered by {type(reply).__name__}")
    return Taken(entry.plan, reply.job, reply.job_uid, entry.keeps_outputs)


def _uploaded(ref: FileRef) -> FileRef:
    return FileRef(ref.digest, ref.size, ref.mode)


def existing_folder(folder: bytes) -> FileIdentity:
    """Look at `folder`, or the nearest one above it that exists."""
    path = Path(os.fsdecode(folder))
    while True:
        try:
            facts = path.stat()
            break
        except OSError as error:
            if path == path.parent:
                raise UsageError(f"cannot look at {path}: {error.strerror}") from None
            path = path.parent
    seen = identity(os.fsencode(path), facts)
    return FileIdentity(seen.path, seen.size, seen.mtime_ns, seen.inode, boot_id())


def make_submission_id() -> bytes:
    """Make a UUIDv7: milliseconds since 1970, then random bits.

    The manager keeps these ids for a bounded time and tells an old one by its date.
    """
    number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    number = number & ~(0xF << 76) | 0x7 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    return number.to_bytes(16, "big")
