"""The API's way in for people: one by PUT, many by import."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from notifier.app import App
from notifier.dispatch.register import Grant, Line, LineProblem, No
from notifier.domain.access import Caller, Scope
from notifier.domain.basis import Basis, Unfounded, end_of
from notifier.domain.basis import read as read_basis
from notifier.domain.consent import ANY
from notifier.domain.standing import scopes
from notifier.errors import NotFound, Problem
from notifier.store import recipients as store
from notifier.web.bodies import (
    ExternalId,
    GrantBody,
    ImportAnswer,
    ImportLine,
    ImportProblem,
    RecipientAnswer,
    RecipientBody,
    WithdrawalBody,
)
from notifier.web.guard import Guarded, needs, refuse_depth
from notifier.web.lists import Bad, Table, cut, read_json
from notifier.web.problems import Kinds, Refused
from notifier.web.reading import Reader
from notifier_channels.contract import Channel

router = APIRouter(route_class=Guarded, prefix="/v1/recipients", tags=["Recipients"])

BATCH = 500
MAX_PROBLEMS = 1000
CSV = ("text/csv",)
NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")

Id = Annotated[ExternalId, Path(description="The product's own id.")]


@router.put("/{id}", responses={201: {"model": RecipientAnswer}}, **needs(Scope.RECIPIENTS))
async def put(request: Request, response: Response, id: Id, body: RecipientBody) -> RecipientAnswer:  # noqa: A002
    """Keep what is said of a recipient. Fields that are left out stay as they are; null removes."""
    app: App = request.app.state.notifier
    reader = Reader(app, request.state.caller)
    given = reader.given(body, "", id)
    reader.check()
    if await app.register.put(given):
        response.status_code = 201
    return await _answer(app, id)


@router.get("/{id}", **needs(Scope.RECIPIENTS, Scope.READ))
async def get(request: Request, id: Id) -> RecipientAnswer:  # noqa: A002
    """A recipient as stored."""
    return await _answer(request.app.state.notifier, id)


async def _answer(app: App, external_id: str) -> RecipientAnswer:
    async with app.database.connection() as c:
        found = (await store.by_external_ids(c, [external_id])).get(external_id)
        if found is None:
            raise NotFound("There is no recipient with this id; PUT creates one.")
        held = {address.channel: address.address for address in await store.addresses_of(c, [found.id])}
    return RecipientAnswer(
        id=external_id,
        email=held.get(Channel.EMAIL),
        phone=held.get(Channel.SMS),
        locale=found.locale,
        timezone=found.timezone,
        attributes=dict(found.attributes),
        created_at=found.created_at,
        updated_at=found.updated_at,
    )


_EXAMPLES = {
    "text/csv": {
        "schema": {"type": "string"},
        "example": "id,email,locale,attributes.plan,grant,granted_at,evidence.form\n"
        "user-17,ann@example.com,de,pro,newsletter,2025-11-03T10:00:00Z,checkout box v2\n",
    },
    "application/x-ndjson": {
        "schema": {"type": "string"},
        "example": '{"id": "user-17", "email": "ann@example.com", "grants": [{"topic": "newsletter", '
        '"granted_at": "2025-11-03T10:00:00Z", "evidence": {"form": "checkout box v2"}}]}\n',
    },
}
_IMPORT = needs(Scope.RECIPIENTS)
_IMPORT["openapi_extra"]["requestBody"] = {"required": True, "content": _EXAMPLES}


@router.post("/import", **_IMPORT)
async def import_list(request: Request) -> ImportAnswer:
    """Keep a list of recipients, CSV or NDJSON, up to 50 MB, streamed. Bad lines are reported, good ones are kept.

    Lines may carry what people said elsewhere (`grant`, `withdrawn`), which needs the scope `preferences` too. Each
    takes its place in time. A grant for a suppressed address is reported and not recorded.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in CSV + NDJSON:
        raise Refused(Kinds.UNSUPPORTED, "Send `Content-Type: text/csv` or `application/x-ndjson`.")
    under_way = _Import(request.app.state.notifier, request.state.caller)
    lines: list[tuple[int, bytes | Bad]] = []
    read = None if media_type in CSV else read_json
    async for number, line in cut(request.stream(), quoted=media_type in CSV):
        if read is None:
            read = Table.described(line if isinstance(line, bytes) else b"").read
            continue
        lines.append((number, line))
        if len(lines) == BATCH:
            await under_way.keep(lines, read)
            lines = []
    if read is not None:
        await under_way.keep(lines, read)
    return under_way.answer()


@dataclass(slots=True)
class _Import:
    """One import while it streams in: what was kept so far, and what was wrong."""

    app: App
    caller: Caller
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[LineProblem] = field(default_factory=list)  #: the first of them: a list may hold nothing but
    left_out: int = 0

    async def keep(self, lines: Sequence[tuple[int, bytes | Bad]], read: Callable[[bytes], ImportLine | Bad]) -> None:
        """Read and store a batch. Reading is work for the processor, so it leaves the event loop alone."""
        good, bad = await asyncio.to_thread(self._read, lines, read)
        imported = await self.app.register.lines(good)
        self.counts.update(lines=len(lines), stored=imported.stored, created=imported.created)
        self.counts.update(grants=imported.grants, withdrawals=imported.withdrawals)
        found = sorted([*bad, *imported.problems], key=lambda problem: problem.line)
        room = MAX_PROBLEMS - len(self.problems)
        self.problems += found[:room]
        self.left_out += len(found[room:])

    def answer(self) -> ImportAnswer:
        return ImportAnswer(
            lines=self.counts["lines"],
            stored=self.counts["stored"],
            created=self.counts["created"],
            grants=self.counts["grants"],
            withdrawals=self.counts["withdrawals"],
            problems=[ImportProblem(line=one.line, pointer=one.pointer, detail=one.detail) for one in self.problems],
            problems_left_out=self.left_out,
        )

    def _read(
        self, lines: Sequence[tuple[int, bytes | Bad]], read: Callable[[bytes], ImportLine | Bad]
    ) -> tuple[list[Line], list[LineProblem]]:
        good, bad = [], []
        for number, line in lines:
            match self._line(number, line, read):
                case Line() as one:
                    good.append(one)
                case problems:
                    bad += [LineProblem(number, problem.pointer, problem.detail) for problem in problems]
        return good, bad

    def _line(
        self, number: int, line: bytes | Bad, read: Callable[[bytes], ImportLine | Bad]
    ) -> Line | Sequence[Problem]:
        if isinstance(line, Bad):
            return line.problems
        try:
            refuse_depth(line)
        except Refused as error:
            return Bad.because(str(error.detail)).problems
        form = read(line)
        if isinstance(form, Bad):
            return form.problems
        reader = Reader(self.app, self.caller)
        given = reader.given(form, "", form.id)
        grants = [self._grant(grant, f"/grants/{position}", reader) for position, grant in enumerate(form.grants)]
        noes = [self._no(no, f"/withdrawals/{position}", reader) for position, no in enumerate(form.withdrawals)]
        return reader.problems or Line(number, given, grants, noes)

    def _grant(self, grant: GrantBody, pointer: str, reader: Reader) -> Grant:
        topic = self.app.templates.topics.get(grant.topic)
        if Scope.PREFERENCES not in self.caller.scopes:
            reader.problems.append(Problem(pointer, "needs a key with the scope `preferences`, too"))
        elif topic is None:
            reader.problems.append(Problem(f"{pointer}/topic", "no such topic; see topics.toml for all"))
        elif topic.mandatory:
            reader.problems.append(Problem(f"{pointer}/topic", "is mandatory and needs no grant; leave it out"))
        elif grant.channel not in topic.defaults:
            reader.problems.append(Problem(f"{pointer}/channel", "the topic has no such channel; leave it out"))
        basis, ends = Basis.EXPRESS, None
        if grant.granted_at > datetime.now(UTC):  # from there a term may lead behind the last day of the calendar
            reader.problems.append(Problem(f"{pointer}/granted_at", "lies in the future; say when they agreed"))
        else:
            basis, ends = _basis(grant, pointer, reader)
        return Grant(grant.topic, grant.channel, grant.granted_at, self._proof(grant.evidence), ends, basis)

    def _no(self, no: WithdrawalBody, pointer: str, reader: Reader) -> No:
        channels = scopes(self.app.templates.topics).get(no.scope)
        if Scope.PREFERENCES not in self.caller.scopes:
            reader.problems.append(Problem(pointer, "needs a key with the scope `preferences`, too"))
        elif channels is None:
            detail = "must be `marketing`, `all`, or `topic:` with the key of a topic that is not mandatory"
            reader.problems.append(Problem(f"{pointer}/scope", detail))
        elif no.channel != ANY and no.channel not in channels:
            reader.problems.append(Problem(f"{pointer}/channel", "the scope has no such channel; leave it out"))
        if no.withdrawn_at > datetime.now(UTC):
            reader.problems.append(Problem(f"{pointer}/withdrawn_at", "lies in the future; say when they said it"))
        return No(no.scope, no.channel, no.withdrawn_at, self._proof(no.evidence))

    def _proof(self, given: Mapping[str, str | None]) -> dict[str, str | None]:
        """What the line says, and who brought it, which no line can say itself."""
        return {**given, "actor": f"key:{self.caller.key_id}"}


def _basis(grant: GrantBody, pointer: str, reader: Reader) -> tuple[Basis, datetime | None]:
    """On what ground a grant stands, which its evidence may name, and when it ends by it."""
    basis = Basis.EXPRESS
    try:
        basis = read_basis(grant.evidence["basis"] or "") if "basis" in grant.evidence else basis
    except Unfounded as error:
        reader.problems.append(Problem(f"{pointer}/evidence/basis", str(error)))
    try:
        return basis, end_of(basis, grant.granted_at, grant.expires_at)
    except Unfounded as error:
        reader.problems.append(Problem(f"{pointer}/expires_at", str(error)))
        return basis, None
