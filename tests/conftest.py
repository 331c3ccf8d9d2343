"""What every test run knows."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--whole``: the sweeps over all points at which a run can be cut, each from a fresh box."""
    parser.addoption(
        "--whole", action="store_true", help="cut runs at every point, each from a fresh box: hours"
    )
