"""The folders of an allocation: what its tasks share, and what each has of its own."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

__all__ = ["AllocDir", "TaskDir"]


NOBODY = 65534


def open_to_all(folder: Path, mode: int = 0o777) -> None:
    """Let any user write into a folder; it belongs to nobody, if the stand-in may say so."""
    folder.chmod(mode)
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)


@dataclass(frozen=True, slots=True)
class TaskDir:
    """The folder of one task."""

    root: Path
    shared: Path
    logs: Path
    name: str

    @property
    def local(self) -> Path:
        """What is `NOMAD_TASK_DIR`."""
        return self.root / "local"

    @property
    def secrets(self) -> Path:
        """What is `NOMAD_SECRETS_DIR`."""
        return self.root / "secrets"

    def log(self, kind: str) -> Path:
        """Return the file of `stdout` or `stderr`."""
        return self.logs / f"{self.name}.{kind}.0"

    def build(self) -> None:
        """Make it, so that any user may write into it."""
        for folder in (self.root, self.local, self.secrets, self.root / "private"):
            folder.mkdir(parents=True, exist_ok=True)
            open_to_all(folder)
        (self.root / "tmp").mkdir(exist_ok=True)
        open_to_all(self.root / "tmp", 0o1777)

    def inside(self, path: str) -> Path | None:
        """Resolve a path below the folder; `None` if it leads out of it."""
        for mounted, own in (("/local", self.local), ("/secrets", self.secrets), ("/alloc", self.shared)):
            if path == mounted or path.startswith(f"{mounted}/"):
                return own / path[len(mounted) :].lstrip("/")
        found = Path(path) if path.startswith(str(self.root)) else self.root / path.lstrip("/")
        return found if found.resolve().is_relative_to(self.root.resolve()) else None


@dataclass(frozen=True, slots=True)
class AllocDir:
    """The folder of one allocation."""

    root: Path

    def build(self) -> None:
        """Make it with what all tasks share."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o755)
        shared = self.root / "alloc"
        shared.mkdir(exist_ok=True)
        open_to_all(shared)
        for name in ("logs", "tmp", "data"):
            (shared / name).mkdir(exist_ok=True)
            open_to_all(shared / name)

    def task(self, name: str) -> TaskDir:
        """Return the folder of a task."""
        shared = self.root / "alloc"
        return TaskDir(self.root / name, shared, shared / "logs", name)

    def remove(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.root, ignore_errors=True)
