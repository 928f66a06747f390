"""Feed, which the Babylon game became in 2026: its own tables and rules over what both games share."""
