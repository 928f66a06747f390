"""The command `babylon`, also as `python -m babylon_assets`: it obeys Ctrl-C and SIGTERM before it imports anything."""

from babylon_assets.cli import stopping


def main() -> None:
    """Run the command that was typed."""
    stopping.end_at_once()
    stopping.ignore_at_the_end()
    from babylon_assets.cli.app import main as run

    run()


if __name__ == "__main__":
    main()
