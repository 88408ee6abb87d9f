import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maceproc.recording.inspected import confinement, read_inspected

ID = "0123456789ab" * 5 + "0123"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def described(**more: object) -> str:
    return json.dumps([{"Id": ID, "State": {"Pid": 7, "Status": "running"}, **more}])


def test_what_docker_and_podman_say() -> None:
    one = read_inspected(described(Name="/web", Image="sha256:1", Args=None, HostConfig=None))
    assert one is not None
    assert (one.plain_name, one.state.pid, one.host.network_mode) == ("web", 7, "")


@pytest.mark.parametrize(
    "name", ["a b", "[red]x[/red]", "\x1b[31m", "-rm", "../../x", "a\nb", "\u202ex", "", "x" * 300]
)
def test_a_name_that_no_engine_gives_is_not_told(name: str) -> None:
    one = read_inspected(described(Name=f"/{name}"))
    assert one is not None
    assert one.plain_name == ID[:12]


@pytest.mark.parametrize(
    "answer",
    ["", "[]", "{}", "[{}]", "null", "[" * 100_000, '[{"Id":"--privileged","State":{}}]',
     '[{"Id":"' + "0" * 64 + '","State":{"Pid":"1; reboot"}}]',
     '[{"Id":"' + "0" * 64 + '","State":{"Pid":1e400}}]',
     described() [:-1] + "," + described()[1:]],
)  # fmt: skip
def test_an_answer_that_describes_no_container(answer: str) -> None:
    assert read_inspected(answer) is None


@given(JSON, JSON, JSON)
def test_any_answer_is_read_or_not(state: object, host: object, name: object) -> None:
    read_inspected(json.dumps([{"Id": ID, "State": state, "HostConfig": host, "Name": name}]))


def test_another_container_is_confined_as_this_one() -> None:
    one = read_inspected(
        described(
            Config={"User": "65534:65534", "Env": ["LD_PRELOAD=/evil.so"]},
            HostConfig={
                "CapDrop": ["ALL"], "CapAdd": ["NET_RAW"], "ReadonlyRootfs": True,
                "NanoCpus": 500000000,
                "SecurityOpt": ["no-new-privileges", 'seccomp={"defaultAction":"SCMP_ACT_ALLOW"}'],
                "Privileged": False, "PidsLimit": 7, "CpuQuota": 50000, "Binds": ["/:/host"],
                "Runtime": "runsc", "GroupAdd": ["audio"], "UsernsMode": "host",
            },
        )
    )  # fmt: skip
    assert one is not None
    words = confinement("docker", one)
    profile = words.pop(words.index("no-new-privileges") + 2)
    assert " ".join(words) == (
        "--user 65534:65534 --group-add audio --cap-drop ALL --cap-add NET_RAW --security-opt "
        "no-new-privileges --security-opt --read-only --userns host --runtime runsc "
        "--pids-limit 7 --cpus 0.5"
    )
    assert Path(profile.removeprefix("seccomp=")).read_text() == (
        '{"defaultAction":"SCMP_ACT_ALLOW"}'
    )
