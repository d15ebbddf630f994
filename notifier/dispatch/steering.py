"""A campaign on its way: taken back, held up, let go on, or ended. Needs nothing but the database.

A move runs in the caller's transaction, which locks the campaign first, and holds from its commit on; what is queued
then follows (`follow`). Asking for what is so already is no mistake, as a request may have got lost on its way back:
it changes nothing, but finishes what broke off.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

from notifier.domain.access import Actor, Scope
from notifier.domain.campaigns import CampaignState, may_become
from notifier.errors import Conflict, Forbidden, NotFound
from notifier.store import campaigns
from notifier.store.campaigns import Campaign
from notifier.store.database import Connection

AT_ONCE = 5_000  #: messages that follow their campaign in one transaction
ASKED = "asked"  #: why it is paused, when somebody has asked for it and said no more


async def locked(c: Connection, id_: UUID, actor: Actor) -> Campaign:
    """The campaign, which nobody else moves until the transaction ends.

    Raises:
        NotFound: there is none with this id.
        Forbidden: the actor may not touch campaigns of this kind.

    """
    campaign = await campaigns.lock(c, id_)
    if campaign is None:
        raise NotFound("There is no campaign with this id.")
    require(actor, is_notice=campaign.content.is_notice)
    return campaign


def require(actor: Actor, *, is_notice: bool) -> None:
    """A notice goes to everybody, whatever they have chosen: it takes an operator's key."""
    scope = Scope.ADMIN if is_notice else Scope.SEND_MARKETING
    if scope not in actor.scopes:
        kind = "a notice, of a mandatory topic," if is_notice else "a campaign of a marketing topic"
        raise Forbidden(f"This key lacks the scope `{scope}`, which {kind} needs.")


async def unschedule(c: Connection, id_: UUID, actor: Actor) -> Campaign:
    """Make it a draft again, before its time has come.

    Raises:
        NotFound, Forbidden: as with `locked`.
        Conflict: it is in a state from which it cannot go there; the text names it.

    """
    campaign = await locked(c, id_, actor)
    return await _moved(c, campaign, CampaignState.DRAFT, "unscheduled", lambda: campaigns.unschedule(c, id_))


async def pause(c: Connection, id_: UUID, actor: Actor, why: str = ASKED) -> Campaign:
    """Hold it up: from the next batch on nothing goes out. Raises as `unschedule`."""
    campaign = await locked(c, id_, actor)
    return await _moved(c, campaign, CampaignState.PAUSED, "paused", lambda: campaigns.pause(c, id_, why))


async def resume(c: Connection, id_: UUID, actor: Actor) -> Campaign:
    """Let it go on; what was queued has to `follow`. Raises as `unschedule`."""
    campaign = await locked(c, id_, actor)
    return await _moved(
        c, campaign, CampaignState.SENDING, "resumed", lambda: campaigns.resume(c, id_), CampaignState.PAUSED
    )


async def cancel(c: Connection, id_: UUID, actor: Actor) -> Campaign:
    """End it: what is not in hand never goes out; what was queued has to `follow`. Raises as `unschedule`."""
    campaign = await locked(c, id_, actor)
    return await _moved(c, campaign, CampaignState.CANCELLED, "cancelled", lambda: campaigns.cancel(c, id_))


async def follow(c: Connection, campaign: Campaign) -> None:
    """Wake or cancel what is queued of a campaign that was resumed or cancelled. May break off and be done again.

    Args:
        c: in autocommit, after the commit of the move: each piece is a transaction, so that workers wait for none long.
        campaign: as it stands now.

    """
    work = {CampaignState.SENDING: campaigns.wake, CampaignState.CANCELLED: campaigns.cancel_queued}[campaign.state]
    last: UUID | None = UUID(int=0)
    while last is not None:
        last = await work(c, campaign.id, last, AT_ONCE)


def refused(campaign: Campaign, done: str, *states: CampaignState) -> Conflict:
    """Why it cannot be done to a campaign in this state."""
    wanted = " or ".join(f"`{state}`" for state in CampaignState if state in states)
    return Conflict(f"The campaign is `{campaign.state}`; only one that is {wanted} can be {done}.")


async def _moved(
    c: Connection,
    campaign: Campaign,
    to: CampaignState,
    done: str,
    move: Callable[[], Awaitable[bool]],
    only: CampaignState | None = None,
) -> Campaign:
    if campaign.state is to:
        return campaign
    if not await move():
        raise refused(campaign, done, *([only] if only else may_become(to)))
    return await current(c, campaign.id)


async def current(c: Connection, id_: UUID) -> Campaign:
    """As it stands now; raises NotFound."""
    campaign = await campaigns.find(c, id_)
    if campaign is None:
        raise NotFound("There is no campaign with this id.")
    return campaign
