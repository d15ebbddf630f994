"""Quiet hours against brute force: every minute of a year, in zones whose clocks change in every way there is."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from phonenumbers.geodata import GEOCODE_DATA

from notifier.dispatch.timing import SHIPPED
from notifier.domain import packs
from notifier.domain.clocks import Window, is_open
from notifier.domain.places import place_of
from notifier.domain.timing import (
    HORIZON,
    NOWHERE,
    Held,
    Hours,
    Pack,
    Place,
    Why,
    hold,
    spread_out,
)
from notifier.errors import NotConfigured
from notifier_channels.contract import Channel

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
MINUTES = 366 * 24 * 60
HALF_HOUR = timedelta(minutes=30)

# Clocks that change by an hour, by half of one (Lord Howe), at midnight (Beirut, Havana), around Ramadan (Casablanca),
# on odd hours (Azores, Chatham), by two of them (Troll), and never.
ODD = (
    "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Beirut", "America/Havana", "Africa/Casablanca",
    "Atlantic/Azores", "Antarctica/Troll", "Pacific/Chatham", "Pacific/Kiritimati",
)  # fmt: skip


def pack(week, *, key="test", channels=Channel, countries=(), prefixes=()) -> Pack:
    return Pack(key, key, frozenset(channels), tuple(week), frozenset(countries), tuple(prefixes), "", NEW_YEAR.date())


def every_day(opens: int, closes: int) -> Pack:
    return pack([Window(opens * 60, closes * 60)] * 7, key=f"{opens}-{closes}")


def shipped() -> dict[str, Pack]:
    return packs.read(files("notifier.domain").joinpath(SHIPPED).read_text(), SHIPPED)


@lru_cache(maxsize=64)
def walls(zone: str) -> list[tuple[int, int]]:
    """What the clock on the wall shows at each minute of the year: weekday, and minutes since midnight."""
    here = ZoneInfo(zone)
    shown = []
    for n in range(MINUTES):
        local = (NEW_YEAR + n * MINUTE).astimezone(here)
        shown.append((local.weekday(), local.hour * 60 + local.minute))
    return shown


def open_at(week, wall) -> bool:
    window = week[wall[0]]
    return window is not None and window.opens <= wall[1] < window.closes


windows = st.none() | st.tuples(st.integers(0, 1439), st.integers(1, 1440)).filter(lambda w: w[0] < w[1]).map(
    lambda w: Window(*w)
)
weeks = st.lists(windows, min_size=7, max_size=7)
around_midnight = st.lists(st.just(Window(0, 1440)) | windows, min_size=7, max_size=7)


@settings(max_examples=60)
@example([ODD[0]], [[Window(0, 1440)] * 7], [0, 1])
@given(
    st.lists(st.sampled_from(ODD), min_size=1, max_size=3, unique=True),
    st.lists(weeks | around_midnight, min_size=1, max_size=2),
    st.lists(st.integers(0, MINUTES - 10 * 24 * 60), min_size=1, max_size=20),
)
def test_the_next_open_minute_is_the_one_that_brute_force_finds_in_a_year(zones, allowed, minutes):
    hours = Hours([pack(week) for week in allowed], zones)
    shown = [walls(zone) for zone in zones]

    def brute(n: int) -> bool:
        return all(open_at(week, wall[n]) for wall in shown for week in allowed)

    horizons: set[datetime] = set()
    for n in minutes:
        at = NEW_YEAR + n * MINUTE
        horizons.add(at + HORIZON)
        spell = hours.spell(at)
        found = next((m for m in range(n, n + 8 * 24 * 60) if brute(m)), None)
        if found is None:
            assert spell is None or spell.opens > at + timedelta(days=8)
            continue
        assert max(spell.opens, at) == NEW_YEAR + found * MINUTE
        ends = next((m for m in range(found, n + 9 * 24 * 60) if not brute(m)), n + 9 * 24 * 60)
        # What has no end within sight ends where an earlier look had its horizon.
        assert spell.closes == NEW_YEAR + ends * MINUTE or at < spell.closes in horizons


@pytest.mark.parametrize("zone", ODD)
def test_every_change_of_clocks_of_the_year_is_met_by_the_minute(zone):
    """Random instants seldom fall on the one night: here each change is walked through, minute by minute."""
    shown = walls(zone)
    jumps = [n for n, (one, other) in enumerate(pairwise(shown)) if (other[1] - one[1]) % 1440 != 1]
    for jump in jumps:
        for opens in (0, 30, 90, 120, 150, 180, 1410):
            week = [Window(opens, min(opens + 45, 1440))] * 7
            hours = Hours([pack(week)], [zone])
            for n in range(max(0, jump - 200), jump + 200, 7):
                found = next(m for m in range(n, n + 3 * 24 * 60) if open_at(week, shown[m]))
                at = NEW_YEAR + n * MINUTE
                assert max(hours.spell(at).opens, at) == NEW_YEAR + found * MINUTE


@settings(max_examples=40)
@given(
    st.sampled_from(sorted(zoneinfo.available_timezones())), st.sampled_from(sorted(shipped())), st.integers(0, 525_000)
)
def test_in_every_zone_a_pack_that_ships_opens_when_the_clock_there_says_so(zone, key, n):
    one = shipped()[key]
    at = NEW_YEAR + n * MINUTE
    spell = Hours([one], [zone]).spell(at)
    assert is_open(one.week, spell.opens.astimezone(ZoneInfo(zone)))
    assert spell.opens == at or not is_open(one.week, (spell.opens - MINUTE).astimezone(ZoneInfo(zone)))
    assert not is_open(one.week, spell.closes.astimezone(ZoneInfo(zone)))


@given(st.integers(0, 500_000), st.lists(st.integers(0, 3000), min_size=1, max_size=10))
def test_what_is_remembered_is_what_would_be_found_anew(start, steps):
    remembering, at = Hours([every_day(8, 21)], ["Europe/Berlin", "America/Boise"]), NEW_YEAR + start * MINUTE
    for step in steps:
        at += step * MINUTE
        known, fresh = remembering.spell(at), Hours([every_day(8, 21)], ["Europe/Berlin", "America/Boise"]).spell(at)
        assert (max(known.opens, at), known.closes) == (max(fresh.opens, at), fresh.closes)


def test_an_earlier_instant_is_looked_at_anew():
    hours = Hours([every_day(8, 21)], ["UTC"])
    noon = NEW_YEAR + timedelta(hours=12)
    assert hours.spell(noon).opens == noon
    assert hours.spell(NEW_YEAR).opens == NEW_YEAR + timedelta(hours=8)


@pytest.mark.parametrize(
    ("hour", "minute", "second", "goes"), [(7, 59, 59, False), (8, 0, 0, True), (20, 59, 59, True), (21, 0, 0, False)]
)
def test_the_federal_hours_hold_to_the_second(hour, minute, second, goes):
    at = datetime(2026, 6, 1, hour, minute, second, tzinfo=ZoneInfo("America/Chicago"))
    assert (Hours([shipped()["us"]], ["America/Chicago"]).spell(at).opens <= at) == goes


def test_nothing_begins_that_would_still_be_on_the_wire_after_closing():
    hours = Hours([every_day(8, 21)], ["UTC"], lasts=timedelta(seconds=60))
    last, morning = NEW_YEAR + timedelta(hours=20, minutes=58, seconds=59), NEW_YEAR + timedelta(days=1, hours=8)
    assert hours.spell(last).opens == last
    assert hours.spell(last + timedelta(seconds=1)).opens == morning


def test_a_person_in_one_of_two_zones_is_written_to_when_it_is_day_in_both():
    hours = Hours([every_day(8, 21)], place_of("+12085550123").zones)
    assert [zone.key for zone in hours.zones] == ["America/Boise", "America/Los_Angeles"]
    in_boise = datetime(2026, 6, 1, 8, 30, tzinfo=ZoneInfo("America/Boise"))
    spell = hours.spell(in_boise)
    assert spell.opens == datetime(2026, 6, 1, 8, 0, tzinfo=ZoneInfo("America/Los_Angeles"))
    assert spell.closes == datetime(2026, 6, 1, 21, 0, tzinfo=ZoneInfo("America/Boise"))
    assert spell.closed_by == "8-21/America/Los_Angeles"


def test_where_it_is_never_day_in_both_it_is_never():
    far_apart = Hours([every_day(8, 12)], ["Pacific/Auckland", "Europe/London"])
    assert far_apart.spell(NEW_YEAR) is None


# Packs ----------------------------------------------------------------------------------------------------------------

STATES = {
    "us-fl": ("Florida", "FL"),
    "us-ok": ("Oklahoma", "OK"),
    "us-md": ("Maryland", "MD"),
    "us-ms": ("Mississippi", "MS"),
    "us-nj": ("New Jersey", "NJ"),
    "us-wa": ("Washington State", "WA"),
    "us-ct": ("Connecticut", "CT"),
    "us-tx": ("Texas", "TX"),
    "us-ri": ("Rhode Island", "RI"),
}


@pytest.mark.parametrize("key", STATES)
def test_the_area_codes_of_a_state_are_those_that_the_numbering_plan_gives_it(key):
    name, short = STATES[key]
    here = {
        f"+{prefix[:4]}"
        for prefix, said in GEOCODE_DATA.items()
        if prefix.startswith("1") and len(prefix) >= 4
        and (said.get("en") == name or said.get("en", "").endswith(f", {short}"))
    }  # fmt: skip
    assert set(shipped()[key].prefixes) == here


def covering(channel: Channel, number: str) -> list[str]:
    return [key for key, one in shipped().items() if one.covers(channel, place_of(number) if number else NOWHERE)]


@pytest.mark.parametrize(
    ("number", "keys"),
    [
        ("+13055550123", ["night", "us", "us-fl"]),
        ("+14155550123", ["night", "us"]),
        ("+14165550123", ["night"]),  # Canada shares the +1
        ("+33612345678", ["night", "eu", "fr"]),
        ("+4915112345678", ["night", "eu"]),
        ("+61412345678", ["night"]),
    ],
)
def test_a_number_has_the_packs_of_its_country_and_of_its_area(number, keys):
    assert covering(Channel.SMS, number) == keys


def test_a_number_of_no_state_has_the_packs_of_all_of_them():
    assert set(covering(Channel.SMS, "+18005550123")) == {"night", "us", *STATES}


def test_pushes_have_the_night_alone_and_mail_has_none():
    assert covering(Channel.PUSH, "") == ["night"]
    assert covering(Channel.EMAIL, "") == []


def test_every_pack_that_ships_says_where_it_is_from_and_when_it_was_read():
    for one in shipped().values():
        assert one.source
        assert one.title
        assert one.read.year == 2026


def test_packs_are_chosen_by_name_in_their_own_order():
    known = shipped()
    assert [one.key for one in packs.chosen(known, "us-tx, us")] == ["us", "us-tx"]
    assert packs.chosen(known, "none") == ()
    assert len(packs.chosen(known, "all")) == len(known)
    with pytest.raises(NotConfigured, match="no pack mars"):
        packs.chosen(known, "us,mars")


GOOD = 'title = "x"\nchannels = ["sms"]\nhours = {mon-fri = "08:00-20:00"}\nsource = "x"\nread = 2026-01-01\n'


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (GOOD + "[x", "own.toml"),
        ("a = 1", "a pack has"),
        ("[a]\n" + GOOD.replace("mon-fri", "fri-mon"), "fri-mon"),
        ("[a]\n" + GOOD.replace("20:00", "07:00"), "within one day"),
        ("[a]\n" + GOOD.replace("20:00", "24:30"), "within one day"),
        ("[a]\n" + GOOD.replace("20:00", "8pm"), "written like"),
        ("[a]\n" + GOOD.replace('"sms"', '"fax"'), "channels"),
        ("[a]\n" + GOOD.replace("2026-01-01", "1"), "date of reading"),
        ("[a]\n" + GOOD + 'prefixes = ["1305"]', "prefixes"),
        ("[a]\n" + GOOD + 'countries = ["usa"]', "countries"),
        ("[a]\n" + GOOD.replace('{mon-fri = "08:00-20:00"}', "{}"), "by days"),
        ("[a]\n" + GOOD + "more = 1", "a pack has"),
    ],
)
def test_a_pack_that_is_wrong_is_named_with_what_is_wrong(wrong, says):
    packs.read("[a]\n" + GOOD, "own.toml")
    with pytest.raises(NotConfigured, match=says):
        packs.read(wrong, "own.toml")


def test_the_end_of_the_day_may_be_written_as_24():
    read = packs.read("[a]\n" + GOOD.replace("20:00", "24:00"), "own.toml")["a"]
    assert read.week == (*[Window(480, 1440)] * 5, None, None)


# Holding and spreading ------------------------------------------------------------------------------------------------


@given(st.uuids(), st.integers(0, 600), st.integers(1, 600))
def test_a_message_goes_out_within_the_spread_and_always_at_the_same_instant(message, minutes, open_for):
    closes = NEW_YEAR + open_for * MINUTE
    instant = spread_out(message, NEW_YEAR, closes, minutes * MINUTE)
    assert NEW_YEAR <= instant < closes
    assert instant <= NEW_YEAR + minutes * MINUTE
    assert instant == spread_out(message, NEW_YEAR, closes, minutes * MINUTE)


def test_a_herd_goes_out_evenly():
    herd = [UUID(int=(1_764_000_000_000 << 80) + (7 << 76) + n) for n in range(3000)]
    minutes = [
        (spread_out(one, NEW_YEAR, NEW_YEAR + timedelta(hours=9), HALF_HOUR) - NEW_YEAR) // MINUTE for one in herd
    ]
    counts = [minutes.count(minute) for minute in range(30)]
    assert sum(counts) == 3000
    assert min(counts) > 60
    assert max(counts) < 145


instants = st.integers(0, 20 * 24 * 60).map(lambda n: NEW_YEAR + n * MINUTE)


@given(
    st.uuids(), instants, st.integers(1, 20 * 24 * 60), st.none() | instants, st.none() | instants,
    st.lists(st.sampled_from(ODD), min_size=1, max_size=2), weeks,
)  # fmt: skip
@example(UUID(int=1), NEW_YEAR, 600, None, None, ["UTC"], [Window(480, 481)] * 7)
def test_when_a_held_message_is_asked_for_again_nothing_holds_it_and_it_is_still_of_use(
    message, at, minutes, snooze, cap, zones, week
):
    expires, hours = at + minutes * MINUTE, Hours([pack(week)], zones)
    given_causes = [(Why.SNOOZED, snooze), (Why.FREQUENCY_CAP, cap)]
    causes = [Held(why, "", until) for why, until in given_causes if until and until > at]
    held = hold(message, (at, expires), causes, hours, HALF_HOUR)
    if held is None:
        assert hours.spell(at).opens <= at
        assert not causes
        return
    if held.until is None:
        return
    assert at <= held.until < expires
    assert held.until > at or held.why is Why.QUIET_HOURS
    left = [cause for cause in causes if cause.until > held.until]
    assert hold(message, (held.until, expires), left, Hours([pack(week)], zones), HALF_HOUR) is None


@given(instants, st.integers(1, 5000), st.integers(1, 5000), weeks)
def test_a_longer_life_never_turns_a_later_into_a_never(at, minutes, more, week):
    hours = Hours([pack(week)], ["Europe/Berlin"])
    short = hold(UUID(int=1), (at, at + minutes * MINUTE), [], hours, HALF_HOUR)
    long = hold(UUID(int=1), (at, at + (minutes + more) * MINUTE), [], hours, HALF_HOUR)
    assert (short is None) == (long is None)
    if short and short.until:
        assert long.until >= short.until


def test_a_snooze_that_ends_at_night_ends_in_the_morning_and_the_night_is_named():
    snooze = Held(Why.SNOOZED, "", NEW_YEAR + timedelta(hours=3))
    held = hold(
        UUID(int=1), (NEW_YEAR, NEW_YEAR + timedelta(days=2)), [snooze], Hours([every_day(8, 21)], ["UTC"]), timedelta()
    )
    assert held == Held(Why.QUIET_HOURS, "8-21/UTC", NEW_YEAR + timedelta(hours=8))


def test_a_snooze_that_ends_by_day_ends_at_its_instant():
    end = NEW_YEAR + timedelta(hours=9)
    held = hold(
        UUID(int=1),
        (NEW_YEAR, NEW_YEAR + timedelta(days=2)),
        [Held(Why.SNOOZED, "", end)],
        Hours([every_day(8, 21)], ["UTC"]),
        HALF_HOUR,
    )
    assert held == Held(Why.SNOOZED, "", end)


def test_a_number_that_cannot_be_read_says_nothing():
    assert place_of("nonsense") == NOWHERE == Place()
