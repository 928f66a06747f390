"""The game's tables, which no other package knows: `source` reads them, `fixture` makes them for demo and tests."""
