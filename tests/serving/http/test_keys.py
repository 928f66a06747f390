"""Keys and where the gateway may listen."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from babylon_assets.cli.app import app
from babylon_assets.config.gateway import GatewaySettings
from babylon_assets.config.settings import Settings, printable
from babylon_assets.domain.errors import PermanentError, SettingsError
from babylon_assets.serving.http.keys import Access, hashed, new_key
from babylon_assets.serving.http.protocol import ApiError
from babylon_assets.serving.http.server import listen
from babylon_assets.serving.policy_registry import in_share


def test_a_key_is_printed_once_with_a_hash_that_opens_for_it() -> None:
    printed = CliRunner().invoke(app, ["serve", "--new-key", "game"])
    assert printed.exit_code == 0, printed.output
    found = re.search(r"(bab-\S+)", printed.output), re.search(r"game:([0-9a-f]{64})", printed.output)
    assert found[0] and found[1]
    assert hashed(found[0][1]) == found[1][1]
    settings = Settings(gateway_keys={"game": found[1][1]})
    assert found[0][1] not in repr(settings) + repr(printable(settings))
    assert Access(settings.gateway.keys, 1, None).who(f"Bearer {found[0][1]}") == "game"


def test_each_key_is_known_by_its_own_name_and_no_other_opens() -> None:
    (one, first), (other, second) = new_key(), new_key()
    access = Access({"one": first, "other": second}, 1, None)
    assert access.who(f"Bearer {one}") == "one"
    assert access.who(f"bearer {other}") == "other"
    for wrong in (None, "", f"Bearer {first}", f"Basic {one}", f"Bearer {one[:-1]}"):
        with pytest.raises(ApiError) as refused:
            access.who(wrong)
        assert refused.value.status == 401


def test_places_are_given_back_however_a_request_ends() -> None:
    access = Access({}, 2, None)
    with pytest.raises(ZeroDivisionError), access.place("a", 2):
        with pytest.raises(ApiError), access.place("a", 1):
            pass
        raise ZeroDivisionError
    with access.place("a", 2):
        pass


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7"])
def test_nobody_else_is_let_in_without_keys(host: str) -> None:
    with pytest.raises(SettingsError, match="--new-key"):
        listen(GatewaySettings(host=host))


def test_a_taken_port_is_named_with_what_to_set() -> None:
    with listen(GatewaySettings(host="127.0.0.1", port=1024 + 40000)) as taken:
        taken.listen()
        with pytest.raises(PermanentError, match="GATEWAY_PORT=41025"):
            listen(GatewaySettings(port=41024))


def test_a_share_of_the_agents_is_close_to_what_was_set_and_only_grows() -> None:
    agents = [f"agent-{number}" for number in range(4000)]
    tenth, half = ({agent for agent in agents if in_share(agent, share)} for share in (0.1, 0.5))
    assert len(tenth) == pytest.approx(400, abs=60)
    assert len(half) == pytest.approx(2000, abs=130)
    assert tenth < half
    assert not any(in_share(agent, 0) for agent in agents)
    assert all(in_share(agent, 1) for agent in agents)
