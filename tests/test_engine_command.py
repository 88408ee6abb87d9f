from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maceproc.errors import CommandError
from maceproc.recording.engine_command import is_engine, parse_engine_command


@pytest.mark.parametrize(
    ("line", "place", "argv"),
    [
        ("docker run alpine ping ::1", "alpine", "ping ::1"),
        ("docker run --rm -it --name web alpine ping -it ::1", "alpine", "ping -it ::1"),
        ("docker container run -e A=1 -eB=2 -p80:80 img:1.0", "img:1.0", ""),
        ("docker run --net=shop --ip 172.18.0.9 a.example:5000/b -c 3", "a.example:5000/b", "-c 3"),
        ("docker run -itv /a:/b alpine ping ::1", "alpine", "ping ::1"),
        ("docker run --rm=false --read-only -- alpine ping ::1", "alpine", "ping ::1"),
        ("podman run --tls-verify=false --http-proxy img ping ::1", "img", "ping ::1"),
        ("docker exec -u root web ping -c 1 ::1", "web", "ping -c 1 ::1"),
        ("nerdctl exec --env A=1 web busybox ping ::1", "web", "busybox ping ::1"),
    ],
)  # fmt: skip
def test_place_and_command(line: str, place: str, argv: str) -> None:
    command = parse_engine_command(line.split())
    assert (command.place, " ".join(command.argv)) == (place, argv)


OPTIONS = st.sampled_from(
    [["--rm"], ["-it"], ["-i"], ["-e", "A=1"], ["-eA=1"], ["--env=A=1"], ["--privileged"],
     ["--network", "shop"], ["--net=shop"], ["-v", "/a:/b"], ["-p", "80:80"], ["--init"],
     ["--cap-add", "NET_RAW"], ["-tu", "root"]]
)  # fmt: skip


@given(st.lists(OPTIONS))
def test_options_end_where_the_image_stands(options: list[list[str]]) -> None:
    words = list(chain(*options))
    command = parse_engine_command(["docker", "run", *words, "alpine", "ping", "-c", "1"])
    assert (command.place, command.argv) == ("alpine", ("ping", "-c", "1"))
    kept = [option.name for option in command.options]
    assert len(kept) >= len(options)
    again = parse_engine_command(["docker", "run", *command.words(without=()), "alpine", "ping"])
    assert again.options == command.options


def test_what_a_container_on_the_host_s_network_cannot_have_is_left_out() -> None:
    line = (
        "docker run --rm --name web --network shop --ip 172.18.0.9 -p 80:80 -P -e A=1 "
        "--sysctl net.ipv4.ping_group_range=1 --sysctl kernel.shmmax=1 --cap-drop ALL img"
    )
    command = parse_engine_command(line.split())
    words = "-e A=1 --sysctl kernel.shmmax=1 --cap-drop ALL"
    assert " ".join(command.words_on_host_network()) == words
    assert command.value("network", "net") == "shop"
    assert "--rm" not in command.words()  # a recording sets it itself


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("docker", "only `docker run`"),
        ("docker compose exec web ping ::1", "only `docker run`"),
        ("docker -H tcp://x run alpine ping", "DOCKER_HOST"),
        ("docker run --rm", "an image is missing"),
        ("docker exec web", "a container and a command is missing"),
        ("docker run -itd alpine ping ::1", "--detach returns before"),
        ("podman exec --latest ping ::1", "which container"),
    ],
)
def test_what_is_not_understood_says_why(line: str, reason: str) -> None:
    with pytest.raises(CommandError, match=reason):
        parse_engine_command(line.split())


def test_engines_are_known_by_their_program() -> None:
    assert is_engine(["/usr/bin/docker", "run"])
    assert not is_engine(["ping", "docker"])
    assert not is_engine([])
