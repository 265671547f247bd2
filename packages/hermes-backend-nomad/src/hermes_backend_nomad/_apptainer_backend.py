"""The backend `nomad-singularity`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from hermes_backend_nomad._apptainer_job import RUNTIME_INSIDE, apptainer_job
from hermes_backend_nomad._backend import ClusterBackend
from hermes_backend_nomad._config import NomadSingularityConfig
from hermes_backend_nomad._diagnosis import diagnose
from hermes_backend_nomad._local_images import local_sif
from hermes_backend_nomad._runtime import Delivery, deliver
from hermes_core.exceptions import ConfigError
from hermes_core.sandbox import Capabilities

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

    from hermes_backend_nomad._address import Address
    from hermes_backend_nomad._job import Job
    from hermes_backend_nomad._sandbox_job import SandboxPlan
    from hermes_core.diagnosis import Finding

__all__ = ["NomadSingularityBackend"]


class NomadSingularityBackend(ClusterBackend):
    """Starts Apptainer containers with `hermes-sandboxd` in them by Nomad's raw_exec driver.

    Args:
        config: Its settings.
    """

    Config: ClassVar[type[BaseModel]] = NomadSingularityConfig
    name = "nomad-singularity"

    def __init__(self, config: NomadSingularityConfig | None = None) -> None:
        self._config = config or NomadSingularityConfig()
        super().__init__(self._config)
        self._delivery: Delivery | None = None

    @property
    def config(self) -> NomadSingularityConfig:
        """The configuration that it was made from."""
        return self._config

    @property
    def capabilities(self) -> Capabilities:
        """Namespaces, or nothing if that is asked for by name: the daemon is no root, and has no other users."""
        return Capabilities(isolation=("namespaces", "none"), image_per_task=True, gpu=self._config.nv)

    @staticmethod
    def diagnose() -> Iterator[Finding]:
        """Say for `hermes doctor` whether there is a cluster for it."""
        return diagnose("nomad-singularity", "raw_exec")

    async def _prepare(self, address: Address, *, build: bool) -> str:
        del build  # the file's name is known once it is there
        if self._config.image is None:
            raise ConfigError(
                "the backend 'nomad-singularity' needs an image",
                hint="-B image=FILE.sif, a folder of the nodes, or a tag of this machine's Docker that ends in :local",
            )
        self._image = await local_sif(self._config)
        self._delivery = await deliver(
            self._config.runtime,
            address,
            RUNTIME_INSIDE,
            fetched_inside=RUNTIME_INSIDE,
            everybody=self._config.user is not None,
        )
        return ""  # its file is named by it

    def _job(self, address: Address, plan: SandboxPlan) -> Job:
        assert self._delivery is not None
        return apptainer_job(self._config, address, self._delivery, plan, self._image)
