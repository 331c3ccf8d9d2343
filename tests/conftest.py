"""What every test run knows."""

import hypothesis
import pytest

# How long an example takes says more of the machine than of the code.
hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--whole``: the sweeps over all points at which a run can be cut, each from a fresh box.

    ``--seed``: what is changed by hand on a box, and has to be mended.
    """
    parser.addoption(
        "--whole", action="store_true", help="cut runs at every point, each from a fresh box: hours"
    )
    parser.addoption(
        "--seed", type=int, default=20261125, help="choose other things to change by hand on a box"
    )
