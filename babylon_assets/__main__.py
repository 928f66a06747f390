"""`python -m babylon_assets`: the command `babylon`."""

from babylon_assets.cli.app import main

if __name__ == "__main__":
    main()
