"""Settings of the backends `nomad` and `nomad-singularity`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import AliasChoices, ConfigDict, Field, StringConstraints, model_validator

from hermes_core.sandbox import SlotSettings

__all__ = ["ClusterSettings", "NomadConfig", "NomadSingularityConfig"]

JobId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Volume = Annotated[str, StringConstraints(pattern=r"^[^:]+:/[^:]*(:(ro|rw))?$")]
Bind = Annotated[str, StringConstraints(pattern=r"^/[^:,]*(:/[^:,]*)?$")]
"""Apptainer has a comma between two of them."""
Folder = Annotated[str, StringConstraints(pattern=r"^/[^/]+")]
UserName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$")]


class ClusterSettings(SlotSettings):
    """What both backends have in common: where the cluster is, and how sandboxes are placed on it."""

    model_config = ConfigDict(populate_by_name=True)

    nomad_address: str | tuple[str, ...] | None = None
    """Address of an agent, or of several of one cluster, in a list or separated by commas: when one cannot be reached,
    the next is asked. By default that of `NOMAD_ADDR`, else `http://127.0.0.1:4646`. Token, TLS files, namespace and
    region are read from the other standard variables, and certificates are verified."""

    namespace: str | None = None
    """Nomad namespace of the jobs; by default that of `NOMAD_NAMESPACE`."""

    region: str | None = None
    """Nomad region; by default that of `NOMAD_REGION`, else the agent's own."""

    datacenter: str = "dc1"
    """Datacenters whose nodes may be used, separated by commas; `*` for every one."""

    node_pool: str | None = None
    """Node pool whose nodes may be used; the namespace's own if None."""

    sandbox_job_id: JobId = "hermes-sandbox"
    """What the names of all jobs begin with. Runs with the same one find each other's warm sandboxes."""

    priority: Annotated[int, Field(ge=1, le=100)] = 50
    """Priority of the jobs: those of higher priority may preempt those of lower."""

    job: Path | None = None
    """File with a job specification of the user's own, in HCL or JSON, that is merged into every job: constraints,
    affinities, node pools, volumes, devices. It wins wherever it says something."""

    runtime: str | None = None
    """Where nodes find the daemon's runtime folder: a folder on each of them, `image:FOLDER` inside the image, or the
    address of an archive (`http://…/hermes.tar.gz`). By default this machine's own, which serves an agent on this
    machine only."""

    cpu: Annotated[int, Field(ge=1)] = 500
    """Share of a node's processors for each sandbox, in MHz."""

    memory: Annotated[int, Field(ge=32)] = 512
    """Memory of each sandbox, all its slots together, in MB."""

    memory_max: Annotated[int, Field(ge=32)] | None = None
    """Memory that a sandbox may use as long as the node has it to spare, in MB, where the cluster allows that."""

    disk: Annotated[int, Field(ge=64)] = 1024
    """Disk that is reserved for each sandbox, in MB."""

    slots_per_sandbox: Annotated[
        int, Field(ge=1, le=1024, validation_alias=AliasChoices("slots_per_sandbox", "slots_per_container"))
    ] = 10
    """Slots of one sandbox."""

    min_sandboxes: Annotated[
        int, Field(ge=0, le=1024, validation_alias=AliasChoices("min_sandboxes", "min_containers"))
    ] = 1
    """Sandboxes that are there whether slots are needed or not."""

    max_sandboxes: Annotated[
        int, Field(ge=1, le=1024, validation_alias=AliasChoices("max_sandboxes", "max_containers"))
    ] = 10
    """Most sandboxes at once; they are started as slots are needed."""

    max_starting: Annotated[int, Field(ge=1, le=1024)] = 4
    """Most sandboxes that are started at once."""

    idle_s: Annotated[float, Field(gt=0)] = 120.0
    """Seconds after which a sandbox that nobody used is stopped, unless that would leave fewer than `min_sandboxes`."""

    health_interval_s: Annotated[
        float, Field(gt=0, validation_alias=AliasChoices("health_interval_s", "health_check_interval"))
    ] = 30.0
    """Seconds between two looks at each sandbox."""

    start_deadline_s: Annotated[float, Field(gt=0)] = 120.0
    """Seconds within which a sandbox must answer once it was asked for, pulling its image included."""

    capacity_wait_s: Annotated[float, Field(ge=0)] = 300.0
    """Seconds without any sandbox, once there was one, for which a cluster that is full, or whose nodes are drained, is
    waited for."""

    lease_ttl_s: Annotated[float, Field(ge=5)] = 60.0
    """Seconds after which a run that gave no sign of life counts as dead, and what it left is swept by others. Its
    sandboxes end by themselves after as long."""

    purge_job_on_shutdown: bool = True
    """Whether sandboxes end with their run. If not, they stay for the next run with the same `sandbox_job_id` and the
    same settings, which takes them over, until nobody used them for `keep_s`."""

    purge_job_on_start: bool = False
    """End warm sandboxes that earlier runs left, instead of taking them over; those that a living run uses stay."""

    keep_s: Annotated[float, Field(gt=0)] = 600.0
    """Seconds that warm sandboxes stay when nobody uses them."""

    tls: bool = False
    """Encrypt the connections to the sandboxes, both sides proven by certificates that are made for each of them."""

    @property
    def idle_end_s(self) -> float:
        """Seconds without anybody after which a sandbox ends by itself."""
        return self.lease_ttl_s if self.purge_job_on_shutdown else self.keep_s

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if not self.datacenter.replace(",", "").strip():
            raise ValueError("datacenter names none; * stands for every one")
        if self.min_sandboxes > self.max_sandboxes:
            raise ValueError(f"min_sandboxes {self.min_sandboxes} is more than max_sandboxes {self.max_sandboxes}")
        if self.memory_max is not None and self.memory_max < self.memory:
            raise ValueError(f"memory_max {self.memory_max} is less than memory {self.memory}")
        return self


class NomadConfig(ClusterSettings):
    """Slots in containers that Nomad's Docker driver runs."""

    image: str = "hermes-sandbox:local"
    """Image of the containers, as the nodes name it. One whose tag ends in `:local` is built on this machine's Docker
    engine when it is missing there."""

    auto_build_local_image: bool = True
    """Build an image whose tag ends in `:local` when it is missing."""

    dockerfile_path: Path | None = None
    """Dockerfile of that image; the reference image's if None."""

    docker_build_context: Path | None = None
    """Folder that it is built from; that of the Dockerfile if None."""

    privileged: bool = False
    """Run the containers privileged, where the operator allows that. Slots need it only if there is no other way to
    namespaces."""

    volumes: tuple[Volume, ...] = ()
    """`SOURCE:FOLDER[:ro|rw]`, folders of the nodes or named volumes, where the operator allows them; `ro` if nothing
    is said. Slots see them and cannot change them."""

    writable: tuple[Folder, ...] = ()
    """Folders of the image, such as `/testbed`, of which every slot gets a copy that it may change. `image` must have
    them; of tasks' own images those that do."""


class NomadSingularityConfig(ClusterSettings):
    """Slots in Apptainer containers that Nomad's raw_exec driver starts, on machines without Docker."""

    image: str | None = None
    """Image of the containers on the nodes: a `.sif` file or an unpacked folder. A Docker tag that ends in `:local` is
    converted once, on this machine, and serves an agent on this machine."""

    user: UserName | None = None
    """User of the nodes who runs the containers: an ordinary one, as Apptainer needs it."""

    executable: str = "apptainer"
    """The engine's program on the nodes."""

    binds: tuple[Bind, ...] = ()
    """`SOURCE[:FOLDER]`, both absolute: folders of the nodes that slots see and cannot change."""

    nv: bool = False
    """Give slots the node's NVIDIA GPUs."""

    writable: tuple[Folder, ...] = ()
    """Folders of the image, such as `/testbed`, of which every slot gets a copy that it may change. `image` must have
    them; of tasks' own images those that do."""
