"""The skeleton promises nothing: no command and no method are registered before they work."""

from importlib.metadata import distribution


def test_nothing_is_registered_before_it_works() -> None:
    assert not distribution("osmn").entry_points
