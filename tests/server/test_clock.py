from datetime import UTC, datetime, timedelta, timezone

from server.clock import Clock, rfc3339


def test_ids_are_uuids_of_version_7_that_sort_by_time():
    clock = Clock()
    before = clock.unix()
    ids = [clock.uuid7() for _ in range(1000)]
    assert len(set(ids)) == 1000
    for number in ids:
        assert (number.version, number.variant) == (7, "specified in RFC 4122")
        assert abs((number.int >> 80) / 1000 - before) < 5
    assert [number.int >> 80 for number in ids] == sorted(number.int >> 80 for number in ids)


def test_times_are_shown_in_utc_with_milliseconds():
    moment = datetime(2026, 11, 22, 20, 30, 0, 123999, tzinfo=timezone(timedelta(hours=1)))
    assert rfc3339(moment) == "2026-11-22T19:30:00.123Z"
    assert Clock().now().tzinfo is UTC
    assert Clock().now().microsecond % 1000 == 0
