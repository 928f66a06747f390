"""What the pages of the assets say of the game alone, and of the market that is simulated in its tables."""

from collections.abc import Mapping

ASSET_NOTES: Mapping[str, str] = {
    "scored_trajectories": """
In the game an action is a trade or none. A prediction share is worth what it paid less what it cost. A perpetual is
worth its return. `heuristic` is the game's own formula per agent (profit of the window, share of trades won, activity),
in [0, 1]. Trades that are in the game's own record, and trades whose worth is known, are counted as well.
""",
    "checkpoint_evaluations": """
On the simulated market a policy is measured on a **held-out market**: boards that no window and no demonstration shows,
the same for every policy, each with the same random numbers. `market_reward` is the mean worth of an order.
`market_advantage` is the share of the oracle's advantage over acting at random. `gain_on_promoted` is the difference to
the served policy, with a bootstrap interval over the same seeds.
""",
}
