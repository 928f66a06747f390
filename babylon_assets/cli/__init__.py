"""The commands of `babylon`, a module per group of commands. `cli.app` registers them."""
