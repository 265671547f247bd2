"""The backend `nomad`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, ClassVar

from hermes_backend_nomad._backend import ClusterBackend
from hermes_backend_nomad._config import NomadConfig
from hermes_backend_nomad._diagnosis import diagnose
from hermes_backend_nomad._docker_job import RUNTIME_FETCHED, RUNTIME_INSIDE, docker_job
from hermes_backend_nomad._failures import refused_capability
from hermes_backend_nomad._local_images import local_image
from hermes_backend_nomad._runtime import Delivery, deliver
from hermes_core.sandbox import ISOLATION_LEVELS, Capabilities

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic import BaseModel

    from hermes_backend_nomad._address import Address
    from hermes_backend_nomad._job import Job
    from hermes_backend_nomad._sandbox_job import SandboxPlan
    from hermes_core.diagnosis import Finding
    from hermes_core.exceptions import HermesError

__all__ = ["NomadBackend"]

_logger = logging.getLogger(__name__)


class NomadBackend(ClusterBackend):
    """Starts containers with `hermes-sandboxd` in them by Nomad's Docker driver.

    Args:
        config: Its settings.
    """

    Config: ClassVar[type[BaseModel]] = NomadConfig
    name = "nomad"

    def __init__(self, config: NomadConfig | None = None) -> None:
        self._config = config or NomadConfig()
        super().__init__(self._config)
        self._delivery: Delivery | None = None
        self._no_namespaces = False

    @property
    def config(self) -> NomadConfig:
        """The configuration that it was made from."""
        return self._config

    @property
    def capabilities(self) -> Capabilities:
        """Every isolation level, and images of tasks; devices are what a job specification asks for."""
        return Capabilities(isolation=ISOLATION_LEVELS, image_per_task=True, gpu=self._config.job is not None)

    @staticmethod
    def diagnose() -> Iterator[Finding]:
        """Say for `hermes doctor` whether there is a cluster for it."""
        return diagnose("nomad", "docker")

    async def _prepare(self, address: Address, *, build: bool) -> str:
        identity = await local_image(self._config, build=build)
        self._delivery = await deliver(
            self._config.runtime, address, RUNTIME_INSIDE, fetched_inside=RUNTIME_FETCHED, everybody=False
        )
        return identity

    def _job(self, address: Address, plan: SandboxPlan) -> Job:
        assert self._delivery is not None
        return docker_job(self._config, address, self._delivery, plan)

    def _isolation(self) -> str:
        return "user" if self._no_namespaces and self._config.isolation == "auto" else self._config.isolation

    def _weaker(self, error: HermesError) -> bool:
        config = self._config
        if config.isolation != "auto" or config.require_isolation == "namespaces" or not refused_capability(error):
            return False
        if not self._no_namespaces:
            _logger.warning("slots have the isolation level 'user' only: no namespaces, since %s", error.message)
        self._no_namespaces = True
        return True
