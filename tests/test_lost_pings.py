"""Where pings without a reply were last seen."""

from maceproc.following.lost_pings import last_seen
from maceproc.schema import HOPS, RTTS


def test_requests_that_no_event_shows_are_counted() -> None:
    # `ping -M do -s 8000` sends nothing: the kernel refuses every packet.
    rtts = RTTS.frame().reindex(range(3)).assign(arm="container traced", status="unanswered")
    assert last_seen(rtts, HOPS.frame()).to_dict() == {"not seen": 3}
