"""What all tests share. The fixtures themselves are in the modules named here."""

pytest_plugins = ["tests.models", "tests.servers", "tests.gateways"]
