"""What each command of `babylon` does, one module per group of commands; `cli.app` puts them together."""
