"""Property tests are not timed: a busy machine is no failure."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_addoption(parser):
    parser.addoption("--device", choices=["standin", "cuda"], default="standin", help="where tests/device compute")
