"""What a person and CI run: `nox -s quickstart`, `nox -s tests`, …

`nox -l` lists the sessions. `HERMES_REQUIRE_ENGINES=namespaces,llamacpp` turns a skipped engine test into a failure.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import nox
from nox.command import CommandFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PACKAGES = (
    "hermes-sandboxd",
    "hermes-core",
    "hermes-backend-docker",
    "hermes-backend-nomad",
    "hermes-backend-singularity",
    "hermes-backend-ssh",
    "hermes-envs",
    "hermes-model-llamacpp",
)
CONSTRAINTS = ("--constraint", "constraints.txt")
ENGINES = ("docker", "ssh", "namespaces", "apptainer", "nomad", "local_model")
"""Markers of tests that need more than Python."""
BENCHMARKS = (("benchmarks/tool_latency.py",), ("benchmarks/turns.py",))
ENGINE_BENCHMARKS = (
    ("benchmarks/engines.py", "--engine", "docker"),
    ("benchmarks/cluster.py", "calls"),
    ("benchmarks/cluster.py", "changes"),
)
FAILED_TESTS = Path(".pytest_cache/v/cache/lastfailed")
"""Where pytest says what failed, if anything did."""
ALL_RAN_SOME_FAILED = 1
"""Pytest's exit code."""
MOST_SECOND_TRIES = 3
TEST_TOOLS = (
    *("pytest", "pytest-xdist", "hypothesis", "trio", "uv", "jinja2", "tokenizers"),
    *("starlette", "uvicorn", "python-hcl2", "types-requests", "trustme"),
)

nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_missing_interpreters = True


def build_wheels(session: nox.Session) -> list[str]:
    """Build every distribution: an sdist from its folder, and the wheel from that sdist."""
    session.install("build", "hatchling", *CONSTRAINTS)
    target = Path(session.virtualenv.location).resolve() / "dist"
    shutil.rmtree(target, ignore_errors=True)
    for package in PACKAGES:
        session.run(
            "python", "-m", "build", "--no-isolation", "--outdir", str(target), f"packages/{package}", silent=True
        )
    return sorted(str(wheel) for wheel in target.glob("*.whl"))


def install_wheels(session: nox.Session, *further: str) -> None:
    session.install(*build_wheels(session), *further, *CONSTRAINTS)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and formatting."""
    session.install("ruff", *CONSTRAINTS)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Strict types of sources, tests and examples."""
    sources = [f"packages/{package}/src" for package in PACKAGES]
    install_wheels(session, "mypy", "nox", "types-PyYAML", *TEST_TOOLS)
    session.run("mypy", *sources, "tests", "examples", "benchmarks", "noxfile.py")


@nox.session
def tests(session: nox.Session) -> None:
    """The whole suite, against the built wheels; a few tests may fail once, which is said."""
    install_wheels(session, *TEST_TOOLS)
    if "HERMES_REQUIRE_ENGINES" in os.environ:
        session.run("hermes", "models", "pull", "smollm2")
    FAILED_TESTS.unlink(missing_ok=True)
    try:
        session.run("pytest", "-n", "auto", "--dist", "worksteal", *session.posargs)
    except CommandFailed as failure:
        if failure.return_code != ALL_RAN_SOME_FAILED or not FAILED_TESTS.exists():
            raise
        try_again(session, sorted(json.loads(FAILED_TESTS.read_text())))


def try_again(session: nox.Session, failed: Sequence[str]) -> None:
    """Run a few failed tests once more, by themselves: engines are real, and the machine may be busy otherwise."""
    if len(failed) > MOST_SECOND_TRIES:
        session.error(f"{len(failed)} tests failed")
    session.warn(f"trying {len(failed)} failed tests once more, by themselves")
    session.run("pytest", "-n", "0", *failed)
    session.warn(f"passed only at the second try, and to be mended: {', '.join(failed)}")


@nox.session
def unit(session: nox.Session) -> None:
    """The tests that need no engine, within two minutes."""
    install_wheels(session, *TEST_TOOLS)
    # Much of their time they wait, for a clock or a process: two for each core.
    workers = str(2 * (os.cpu_count() or 1))
    without = " and ".join(f"not {engine}" for engine in ENGINES)
    session.run("pytest", "-n", workers, "--dist", "worksteal", "-m", without, *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Write the generated reference, and do what the documents say."""
    install_wheels(session, *TEST_TOOLS)
    with Path("docs/reference/cli.md").open("w") as page:
        session.run("python", "-m", "hermes_core.cli._reference", stdout=page)
    session.run("pytest", "tests/docs", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Look for inputs that break the daemon, for five minutes; pass `-- -max_total_time=60` for less."""
    install_wheels(session, "atheris")
    session.run("python", "tests/hermes_sandboxd/fuzz_frames.py", *(session.posargs or ("-max_total_time=300",)))


@nox.session
def build(session: nox.Session) -> None:
    """Build every distribution, and install each alone into a clean environment."""
    wheels = build_wheels(session)
    with tempfile.TemporaryDirectory() as folder:
        for wheel in wheels:
            name = Path(wheel).name.split("-")[0]
            venv = Path(folder) / name
            session.run("python", "-m", "venv", str(venv))
            links = str(Path(wheel).parent)
            session.run(
                str(venv / "bin/pip"), "install", "--quiet", "--find-links", links, *CONSTRAINTS, wheel, external=True
            )
            session.run(str(venv / "bin/python"), "-W", "error", "-c", f"import {name}", external=True)
            source = next(Path(wheel).parent.glob(f"{name}-*.tar.gz"))
            session.run(
                *(str(venv / "bin/pip"), "install", "--quiet", "--find-links", links, *CONSTRAINTS),
                *("--force-reinstall", "--no-deps", str(source)),
                external=True,
            )
            session.run(str(venv / "bin/python"), "-W", "error", "-c", f"import {name}", external=True)


@nox.session
def quickstart(session: nox.Session) -> None:
    """Install, and run a real sandbox with the oracle and with the small local model."""
    install_wheels(session)
    session.run("hermes", "models", "pull", "smollm2")
    with tempfile.TemporaryDirectory() as out:
        for model in ("oracle", "local"):
            session.run(
                *("hermes", "run", "arithmetic", "--model", model, "--backend", "local"),
                *("--tasks", "4", "--group-size", "2", "--concurrency", "8", "--out", f"{out}/{model}"),
            )


@nox.session
def bench(session: nox.Session) -> None:
    """Measure what needs no engine; pass `-- --json` for JSON. A bar that is missed fails it, once all was measured."""
    install_wheels(session)
    measure(session, BENCHMARKS)


@nox.session
def bench_engines(session: nox.Session) -> None:
    """Measure slots in Docker containers and on a cluster, as `bench` does; Apptainer asks for an ordinary user."""
    install_wheels(session, *TEST_TOOLS)
    measure(session, ENGINE_BENCHMARKS)


def measure(session: nox.Session, benchmarks: Iterable[Sequence[str]]) -> None:
    missed = []
    for benchmark in benchmarks:
        try:
            session.run("python", *benchmark, *session.posargs)
        except CommandFailed:
            missed.append(" ".join(benchmark))
    if missed:
        session.error(f"missed a bar: {', '.join(missed)}")
