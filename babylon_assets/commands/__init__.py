"""What each command of `babylon` does, one module per group of commands; `babylon_assets.cli` puts them together."""
