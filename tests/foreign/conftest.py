import pytest
from server import Server

DEMO = [b"data chunk #%d\n" % seq for seq in range(10)]


@pytest.fixture(scope="session")
def server():
    """The demo feed, shared by all tests that only read."""
    with Server() as running:
        yield running


@pytest.fixture
def by_hand():
    """A server whose every chunk the test makes."""
    with Server(by_hand=True) as running:
        yield running


@pytest.fixture
def demo():
    return DEMO
