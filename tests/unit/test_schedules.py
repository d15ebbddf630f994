"""When a campaign goes out: schedules as callers write them, clocks that are changed, what happens again and again."""

import zoneinfo
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from notifier.domain.schedules import EARLIEST, LATEST, Recurrence, Schedule, instant, known_zone
from notifier.errors import InvalidInput

ZONES = sorted(zoneinfo.available_timezones() - {"localtime"})
FROM, TO = datetime.fromisoformat("2000-01-01"), datetime.fromisoformat("2037-12-30")
MINUTES = st.datetimes(FROM, TO).map(lambda at: at.replace(second=0, microsecond=0))
SCHEDULED = datetime(2026, 11, 2, 8, tzinfo=UTC)

zones = st.sampled_from(ZONES).map(zoneinfo.ZoneInfo)


def shown(at: datetime, zone: zoneinfo.ZoneInfo) -> datetime:
    """What a clock on a wall there shows."""
    return at.astimezone(zone).replace(tzinfo=None)


# A time on each person's own clock -----------------------------------------------------------------------------------

KNOWN_DAYS = [
    # zone, what the clock is to show, when that is
    ("Europe/Vienna", "2026-07-01T09:00", "2026-07-01T07:00Z"),
    ("Europe/Vienna", "2026-03-29T01:59", "2026-03-29T00:59Z"),
    ("Europe/Vienna", "2026-03-29T02:00", "2026-03-29T01:00Z"),  # 02:00 to 03:00 is skipped
    ("Europe/Vienna", "2026-03-29T02:30", "2026-03-29T01:00Z"),
    ("Europe/Vienna", "2026-03-29T03:00", "2026-03-29T01:00Z"),
    ("Europe/Vienna", "2026-10-25T01:59", "2026-10-24T23:59Z"),
    ("Europe/Vienna", "2026-10-25T02:30", "2026-10-25T00:30Z"),  # comes twice: the first time
    ("Europe/Vienna", "2026-10-25T03:00", "2026-10-25T02:00Z"),
    ("America/New_York", "2026-03-08T02:30", "2026-03-08T07:00Z"),
    ("America/New_York", "2026-11-01T01:30", "2026-11-01T05:30Z"),
    ("Australia/Lord_Howe", "2026-10-04T02:15", "2026-10-03T15:30Z"),  # changes by half an hour
    ("Australia/Lord_Howe", "2026-04-05T01:45", "2026-04-04T14:45Z"),
    ("Africa/Cairo", "2026-04-24T00:00", "2026-04-23T22:00Z"),  # its day begins at one
    ("Pacific/Apia", "2011-12-30T12:00", "2011-12-30T10:00Z"),  # a day that Samoa left out
    ("Asia/Kolkata", "2026-12-24T09:00", "2026-12-24T03:30Z"),
    ("Pacific/Kiritimati", "2026-12-24T09:00", "2026-12-23T19:00Z"),
    ("Etc/GMT+12", "2026-12-24T09:00", "2026-12-24T21:00Z"),
]


@pytest.mark.parametrize(("zone", "local", "expected"), KNOWN_DAYS)
def test_a_local_time_is_this_instant(zone, local, expected):
    found = instant(datetime.fromisoformat(local), zoneinfo.ZoneInfo(zone))
    assert found == datetime.fromisoformat(expected)
    assert found.tzinfo is UTC


@given(MINUTES, zones)
def test_the_clock_shows_the_time_or_the_first_one_after_what_is_skipped(local, zone):
    at = instant(local, zone)
    if shown(at, zone) != local:
        assert shown(at, zone) > local
        assert shown(at - timedelta(seconds=1), zone) < local


@given(MINUTES, zones)
def test_of_a_time_that_comes_twice_it_is_the_first(local, zone):
    at = instant(local, zone)
    earlier = [at - timedelta(minutes=before) for before in range(15, 24 * 60, 15)]
    assert local not in [shown(one, zone) for one in earlier]


@given(MINUTES, MINUTES, zones)
def test_a_later_time_is_never_an_earlier_instant(one, other, zone):
    # But where a time comes twice: what follows the first pass lies between the two.
    if shown(instant(one, zone), zone) == one and one <= other:
        assert instant(one, zone) <= instant(other, zone)


@given(MINUTES, zones)
def test_no_zone_has_it_before_the_schedule_starts_or_after_it_ends(local, zone):
    schedule = Schedule(local=local)
    due = schedule.due_in(zone, SCHEDULED)
    # A whole day that is skipped is over at its end.
    assert schedule.starts_at(SCHEDULED) <= due <= schedule.ends_at(SCHEDULED) + timedelta(days=1)


def test_it_starts_where_the_day_begins_first_and_ends_where_it_begins_last():
    schedule = Schedule.parse({"at": "2026-12-24T09:00", "local": True, "over": "2h"})
    assert schedule.starts_at(SCHEDULED) == schedule.due_in(zoneinfo.ZoneInfo("Pacific/Kiritimati"), SCHEDULED)
    last = schedule.due_in(zoneinfo.ZoneInfo("Etc/GMT+12"), SCHEDULED)
    assert schedule.ends_at(SCHEDULED) == last + timedelta(hours=2)


def test_no_clock_on_earth_is_further_ahead_or_behind():
    at = datetime(2026, 1, 1, tzinfo=UTC)
    offsets = [
        (at + timedelta(days=30 * month)).astimezone(zoneinfo.ZoneInfo(zone)).utcoffset()
        for zone in ZONES
        for month in range(12)
    ]
    assert max(offsets) == EARLIEST
    assert min(offsets) == -LATEST


@pytest.mark.parametrize("name", [None, "", "Europe/Atlantis", "America", "/etc/passwd", "../x", "a\0b", "x" * 300])
def test_a_zone_that_nobody_knows_is_no_zone(name):
    assert known_zone(name) is None


def test_a_zone_is_found_by_its_name():
    assert known_zone("Europe/Vienna") == zoneinfo.ZoneInfo("Europe/Vienna")


# At once, and at an instant ------------------------------------------------------------------------------------------


def test_without_an_instant_it_starts_when_it_was_scheduled():
    schedule = Schedule.parse({"at": None})
    assert schedule.starts_at(SCHEDULED) == schedule.ends_at(SCHEDULED) == SCHEDULED


@given(zones)
def test_an_instant_is_the_same_for_every_zone(zone):
    schedule = Schedule.parse({"at": "2026-12-24T09:00:00+01:00"})
    assert schedule.due_in(zone, SCHEDULED) == datetime(2026, 12, 24, 8, tzinfo=UTC)


# Spread --------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2_000_000), st.integers(0, 1_000_000), st.integers(0, 9000))
def test_a_spread_begins_at_once_and_never_lasts_longer_than_it_may(before, size, minutes):
    schedule = Schedule(over=timedelta(minutes=minutes))
    assert schedule.delay(0, size) == timedelta()
    assert timedelta() <= schedule.delay(before, size) <= schedule.over
    assert schedule.delay(before, size) <= schedule.delay(before + 1, size)


def test_a_spread_is_even():
    schedule = Schedule.parse({"at": None, "over": "2h"})
    assert schedule.delay(500, 1000) == timedelta(hours=1)
    assert schedule.delay(750, 1000) == timedelta(minutes=90)


# Again and again -----------------------------------------------------------------------------------------------------

OCCURRENCES = [
    # what cron says, in which zone, after when, and what follows
    ("0 9 * * 1", "Europe/Vienna", "2026-11-02T08:00Z", ["2026-11-09T08:00Z", "2026-11-16T08:00Z"]),
    ("0 9 * * 1", "Europe/Vienna", "2026-11-02T07:59:59Z", ["2026-11-02T08:00Z", "2026-11-09T08:00Z"]),
    ("0 9 * * *", "Europe/Vienna", "2026-03-28T00:00Z", ["2026-03-28T08:00Z", "2026-03-29T07:00Z"]),
    ("30 2 * * *", "Europe/Vienna", "2026-03-28T12:00Z", ["2026-03-29T01:00Z", "2026-03-30T00:30Z"]),
    ("30 2 * * *", "Europe/Vienna", "2026-10-24T12:00Z", ["2026-10-25T00:30Z", "2026-10-26T01:30Z"]),
    # asked in the second pass of the hour that comes twice
    ("45 2 * * *", "Europe/Vienna", "2026-10-25T01:15Z", ["2026-10-26T01:45Z", "2026-10-27T01:45Z"]),
    ("15 2,3 * * *", "Europe/Vienna", "2026-03-29T00:00Z", ["2026-03-29T01:00Z", "2026-03-29T01:15Z"]),
    ("0 8 1 * *", "America/New_York", "2026-02-20T00:00Z", ["2026-03-01T13:00Z", "2026-04-01T12:00Z"]),
    ("0 0 29 2 *", "UTC", "2026-01-01T00:00Z", ["2028-02-29T00:00Z", "2032-02-29T00:00Z"]),
    ("0 12 L * *", "UTC", "2026-02-01T00:00Z", ["2026-02-28T12:00Z", "2026-03-31T12:00Z"]),
]


@pytest.mark.parametrize(("cron", "zone", "after", "expected"), OCCURRENCES)
def test_it_occurs_at_these_instants(cron, zone, after, expected):
    recurs = Recurrence(cron, zone, timedelta(days=1))
    found = list(islice(recurs.after(datetime.fromisoformat(after)), len(expected)))
    assert found == [datetime.fromisoformat(one) for one in expected]


crons = st.builds(
    "{} {} {} * {}".format,
    st.integers(0, 59),
    st.sampled_from(["*", "2", "1,2,3", "*/5", "0"]),
    st.sampled_from(["*", "1", "L", "*/2"]),
    st.sampled_from(["*", "MON", "1-5"]),
)


@given(crons, st.sampled_from(ZONES), MINUTES)
def test_what_recurs_goes_forward_only_and_goes_on_from_where_it_stopped(cron, zone, after):
    recurs = Recurrence(cron, zone, timedelta(days=1))
    start = after.replace(tzinfo=UTC)
    found = list(islice(recurs.after(start), 6))
    assert all(one < other for one, other in pairwise([start, *found]))
    assert list(islice(recurs.after(found[2]), 3)) == found[3:]


def test_an_occurrence_is_at_its_instant_and_as_spread_as_its_series():
    series = Schedule.parse({"cron": "0 9 * * 1", "timezone": "UTC", "expires_after": "1d", "over": "2h"})
    at = series.starts_at(SCHEDULED)
    assert series.occurrence(at) == Schedule(at=at, over=timedelta(hours=2))


# As JSON -------------------------------------------------------------------------------------------------------------

GOOD = [
    {"at": None},
    {"at": "2026-12-24T09:00:00Z"},
    {"at": "2026-12-24T09:00:00Z", "over": "90m"},
    {"at": "2026-12-24T09:00:00", "local": True},
    {"cron": "0 9 * * 1", "timezone": "Europe/Vienna", "expires_after": "1d"},
    {"cron": "0 9 * * MON#1", "timezone": "Europe/Vienna", "expires_after": "1d", "over": "2h"},
]


@pytest.mark.parametrize("document", GOOD)
def test_a_schedule_is_stored_as_it_is_read(document):
    schedule = Schedule.parse(document)
    assert schedule.document == document
    assert Schedule.parse(schedule.document) == schedule


def test_an_empty_schedule_is_at_once():
    assert Schedule.parse({}) == Schedule.parse({"at": None, "local": False, "over": None}) == Schedule()


BAD = [
    ("now", [""], "is an object"),
    ({"at": "tomorrow"}, ["/at"], "2026-12-24T09:00:00Z"),
    ({"at": "2026-12-24T09:00"}, ["/at"], "offset"),
    ({"at": "2026-12-24T09:00Z", "local": True}, ["/at"], "without a zone"),
    ({"local": True}, ["/at"], "own clock"),
    ({"at": "0001-01-01T00:00:00+14:00"}, ["/at"], "is a time"),
    ({"at": 5, "local": 1, "over": "1y", "when": 1}, ["/when", "/local", "/at", "/over"], "is true or false"),
    ({"at": None, "over": "31d"}, ["/over"], "at most 30d"),
    ({"a/b~c": 1}, ["/a~1b~0c"], "not known"),
    ({"cron": "0 9 * *"}, ["/timezone", "/expires_after", "/cron"], "five fields"),
    ({"cron": "* 9 * * *", "timezone": "UTC", "expires_after": "1d"}, ["/cron"], "once an hour"),
    ({"cron": "0 0 9 * * 1", "timezone": "UTC", "expires_after": "1d"}, ["/cron"], "five fields"),
    ({"cron": "61 9 * * 1", "timezone": "UTC", "expires_after": "1d"}, ["/cron"], "bad minute"),
    ({"cron": "0 9 30 2 *", "timezone": "UTC", "expires_after": "1d"}, ["/cron"], ""),
    ({"cron": "0 9 */20 * 1L", "timezone": "UTC", "expires_after": "1d"}, ["/cron"], "never comes"),
    ({"cron": "0 9 * * 1", "timezone": "Europe/Atlantis", "expires_after": "1d"}, ["/timezone"], "Europe/Vienna"),
    ({"cron": "0 9 * * 1", "timezone": "UTC", "expires_after": "1h", "over": "1h"}, ["/over"], "get nothing"),
    ({"cron": "0 9 * * 1", "timezone": "UTC", "expires_after": "1d", "local": True}, ["/local"], "not known"),
]


@pytest.mark.parametrize(("document", "pointers", "words"), BAD)
def test_what_is_wrong_is_named_with_its_place_and_its_remedy(document, pointers, words):
    with pytest.raises(InvalidInput) as refused:
        Schedule.parse(document, "/s")
    assert [problem.pointer for problem in refused.value.problems] == [f"/s{pointer}" for pointer in pointers]
    assert words in str(refused.value)


def read(document):
    """A schedule, or the places of what is wrong with it."""
    try:
        return Schedule.parse(document), set()
    except InvalidInput as refused:
        return None, {problem.pointer for problem in refused.problems}


@given(st.text() | st.text("0123456789*/,-#LWMONJA ", max_size=30))
@example("\u0663 9 * * 1")
@example("0 9 * * " + "9" * 90)
def test_whatever_stands_in_cron_is_read_or_refused(cron):
    schedule, places = read({"cron": cron, "timezone": "Europe/Vienna", "expires_after": "1d"})
    assert schedule.starts_at(SCHEDULED) > SCHEDULED if schedule else places == {"/schedule/cron"}


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=2)),
    st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner, max_size=2)),
)
def test_whatever_stands_in_a_field_is_read_or_refused(one, other):
    for document in ({"at": one, "local": other}, {"at": one, "over": other}, {"cron": one, "timezone": other}):
        schedule, places = read(document)
        assert places or Schedule.parse(schedule.document) == schedule
