"""Names of policies."""

from __future__ import annotations

import pytest

from babylon_assets.domain.policies import branch_chain, main_chain, policy_name, policy_step


@pytest.mark.parametrize("step", [0, 3, 12_345])
@pytest.mark.parametrize("model", ["babylon-agent", "team@home"])
def test_a_name_tells_its_step_to_its_own_model_only(model: str, step: int) -> None:
    assert policy_step(policy_name(model, step), model) == step
    assert policy_step(policy_name(model, step), "other-agent") is None


@pytest.mark.parametrize(
    "name",
    [
        "gpt-4o",
        "babylon-agent",
        "babylon-agent@",
        "babylon-agent@-1",
        "babylon-agent@1.5",
        "babylon-agent@x@3",
        "babylon-agent2@3",
        "other+babylon-agent@3",
        "@3",
        "",
    ],
)
def test_anything_else_is_no_policy_of_ours(name: str) -> None:
    assert policy_step(name, "babylon-agent") is None


def test_a_branch_is_the_models_own_under_a_name_of_its_own() -> None:
    chain = branch_chain("babylon-agent", "2026-11-05T14")
    assert main_chain(chain) == main_chain("babylon-agent") == "babylon-agent"
    assert policy_name(chain, 3) == "babylon-agent+2026-11-05T14@3" != policy_name("babylon-agent", 3)
    assert policy_step(policy_name(chain, 3), "babylon-agent") == 3
    assert policy_step(policy_name(chain, 3), "babylon") is None
