from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from hermes_backend_docker._places import Place, PlaceName, Places
from hermes_core.exceptions import BackendUnavailableError, ConfigError

if TYPE_CHECKING:
    from pathlib import Path

NAME = PlaceName("owner", "owner-0")


@pytest.fixture
def places(state: Path) -> Places:
    found = Places.open(state, make=True)
    assert found is not None
    return found


def test_a_place_is_held_until_it_is_released(places: Places, state: Path) -> None:
    place = places.claim(NAME, None)
    assert place.folder.stat().st_mode & 0o777 == 0o700
    assert places.names() == [NAME]
    assert places.is_held(NAME)
    with places.clearing(NAME) as dead:
        assert not dead
    with pytest.raises(ConfigError, match="already"):
        places.claim(NAME, None)
    place.release()
    place.release()
    assert places.names() == []
    assert not places.is_held(NAME)
    assert [name for name in os.listdir(state) if not name.startswith(".")] == []


def test_the_place_of_a_process_that_was_killed_is_free(places: Places, state: Path) -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.write(writing, b"x" if isinstance(places.claim(NAME, None), Place) else b"-")
        time.sleep(60)
        os._exit(0)
    os.read(reading, 1)
    for descriptor in (reading, writing):
        os.close(descriptor)
    assert places.is_held(NAME)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert places.names() == [NAME]
    assert not places.is_held(NAME)
    with places.clearing(NAME) as dead:
        assert dead
    assert places.names() == []


def test_each_folder_has_an_identity(state: Path, tmp_path: Path) -> None:
    found = [Places.open(folder, make=True) for folder in (state, state, tmp_path / "other")]
    one, two, other = (places.identity for places in found if places is not None)
    assert one == two != other


def test_looking_makes_nothing(tmp_path: Path) -> None:
    assert Places.open(tmp_path / "nothing", make=False) is None
    assert not (tmp_path / "nothing").exists()


def test_a_folder_that_others_can_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(BackendUnavailableError, match="only this user"):
        Places.open(tmp_path, make=True)


def test_a_path_that_no_socket_can_have_is_refused(tmp_path: Path) -> None:
    places = Places.open(tmp_path / ("x" * 100), make=True)
    assert places is not None
    with pytest.raises(ConfigError, match="too long"):
        places.claim(NAME, None)
