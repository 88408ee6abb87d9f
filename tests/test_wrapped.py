import pytest
from hypothesis import given
from hypothesis import strategies as st

from maceproc.errors import CommandError
from maceproc.recording.command import parse_command
from maceproc.recording.wrapped import REFUSED, UNDERSTOOD

PING = "ping -c 3 192.0.2.1"


@pytest.mark.parametrize(
    "prefix",
    ["nice", "nice -n 5", "nice -n5", "nice --adjustment=5", "/usr/bin/nice", "taskset 1",
     "taskset -c 0,1", "taskset --cpu-list 0", "stdbuf -oL", "stdbuf -o L -e 0", "chrt -f 10",
     "chrt --rr 5", "ionice -c 3", "env", "env A=1 B=2", "env -i PATH=/bin", "env -u LANG A=1",
     "nice taskset 1 stdbuf -oL env A=1"],
)  # fmt: skip
def test_what_only_prepares_a_ping_is_understood(prefix: str) -> None:
    command = parse_command(f"{prefix} {PING}".split())
    assert (command.program, command.destination) == ("ping", "192.0.2.1")
    assert (command.words, command.argv[: command.prefix]) == (["ping"], tuple(prefix.split()))
    stamped = command.with_timestamps()
    assert " ".join(stamped.argv) == f"{prefix} ping -D -c 3 192.0.2.1"
    assert stamped.with_timestamps() == stamped


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (f"sudo {PING}", "root already"),
        (f"sudo docker exec web {PING}", "root already"),
        (f"timeout 5 {PING}", "ping -w SECONDS"),
        (f"kubectl exec -n web pod-1 -- {PING}", "--pod [NAMESPACE/]NAME"),
        (f"crictl exec -it 4711 {PING}", "--pod [NAMESPACE/]NAME"),
        (f"nsenter -t 1 -n {PING}", "--pid PID"),
        (f"ip netns exec blue {PING}", "--netns NAME"),
        (f"ip -n blue netns exec blue {PING}", "--netns NAME"),
        (f"chroot /srv {PING}", "leave it out"),
        (f"docker-compose exec web {PING}", "--compose SERVICE"),
        (f"incus exec web -- {PING}", "--lxc NAME"),
        (f"lxc-attach -n web -- {PING}", "--lxc NAME"),
        (f"machinectl shell web /bin/{PING}", "--machine NAME"),
        (f"systemd-run -p PrivateNetwork=yes {PING}", "--unit NAME"),
        (f"runc exec web {PING}", "--pid takes"),
        (f"watch {PING}", "leave it out"),
        (f"setpriv --reuid 1 {PING}", "root already"),
        (f"nice sudo {PING}", "root already"),
        (f"env A=1 nice docker exec web {PING}", "begin with docker"),
        (f"/usr/bin/ssh host {PING}", "on that machine"),
        (f"nice -x {PING}", "leave it out"),
        (f"taskset -p 1 {PING}", "leave it out"),
        ("nice -n 5", "the command is missing"),
        ("taskset 1", "the command is missing"),
    ],
)
def test_what_runs_a_ping_elsewhere_is_refused(line: str, hint: str) -> None:
    with pytest.raises(CommandError) as refused:
        parse_command(line.split())
    assert hint in str(refused.value)


@given(
    st.lists(st.sampled_from(sorted(UNDERSTOOD))), st.sampled_from(sorted(REFUSED.keys() - {"ip"}))
)
def test_no_wrapper_hides_what_is_refused(names: list[str], refused: str) -> None:
    prefix = [word for name in names for word in [name, *["1"] * UNDERSTOOD[name].operands]]
    with pytest.raises(CommandError):
        parse_command([*prefix, refused, *PING.split()])


def test_other_verbs_are_recorded_as_they_are() -> None:
    assert parse_command(["ip", "neigh", "flush", "all"]).program == "ip"
