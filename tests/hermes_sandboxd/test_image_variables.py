"""Slots in a container have the variables of its image, and none of the engine's or the daemon's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_sandboxd._image_variables import image_variables

if TYPE_CHECKING:
    from pathlib import Path

APPTAINER = {"APPTAINER_CONTAINER": "/x.sif", "PS1": "Apptainer> "}


def test_variables_of_the_image_are_told_from_the_engines_and_the_daemons() -> None:
    image = {"PATH": "/opt/conda/bin:/usr/bin", "CONDA_DIR": "/opt/conda", "LANG": "C.UTF-8", "HERMES_HOME": "/opt/h"}
    others = {
        "HOME": "/root",
        "HOSTNAME": "f00",
        "NOMAD_PORT_rpc": "20001",
        "HERMES_SANDBOX_TOKEN": "secret",
        "LD_LIBRARY_PATH": "/.singularity.d/libs",
        "LC_CTYPE": "C.UTF-8",
    }
    assert image_variables({**image, **others, **APPTAINER}) == image


def test_what_apptainer_sets_by_default_is_kept_when_the_image_says_it() -> None:
    assert image_variables({"LANG": "C", **APPTAINER}) == {}
    assert image_variables({"LD_LIBRARY_PATH": "/opt/lib", **APPTAINER}) == {"LD_LIBRARY_PATH": "/opt/lib"}
    docker = {"LANG": "C", "PS1": "> "}
    assert image_variables(docker) == docker


def test_drivers_of_the_machine_are_found_where_apptainer_has_put_any(tmp_path: Path) -> None:
    said = {"LD_LIBRARY_PATH": "/.singularity.d/libs"}
    assert image_variables({**said, **APPTAINER}, str(tmp_path)) == {}
    (tmp_path / "libcuda.so.1").touch()
    assert image_variables({**said, **APPTAINER}, str(tmp_path)) == said
    assert image_variables(APPTAINER, str(tmp_path)) == said
    own = {"LD_LIBRARY_PATH": "/opt/lib:/.singularity.d/libs"}
    assert image_variables({**own, **APPTAINER}, str(tmp_path)) == own
