"""Slots in a container have the variables of its image, and none of the engine's or the daemon's."""

from hermes_sandboxd._image_variables import image_variables


def test_variables_of_the_image_are_told_from_the_engines_and_the_daemons() -> None:
    image = {"PATH": "/opt/conda/bin:/usr/bin", "CONDA_DIR": "/opt/conda", "LANG": "C.UTF-8"}
    others = {
        "HOME": "/root",
        "HOSTNAME": "f00",
        "NOMAD_PORT_rpc": "20001",
        "HERMES_SANDBOX_TOKEN": "secret",
        "APPTAINER_CONTAINER": "/x.sif",
        "LD_LIBRARY_PATH": "/.singularity.d/libs",
        "LC_CTYPE": "C.UTF-8",
    }
    assert image_variables({**image, **others}) == image


def test_what_is_set_by_default_is_kept_when_the_image_says_more() -> None:
    assert image_variables({"LANG": "C"}) == {}
    assert image_variables({"LD_LIBRARY_PATH": "/opt/lib"}) == {"LD_LIBRARY_PATH": "/opt/lib"}
