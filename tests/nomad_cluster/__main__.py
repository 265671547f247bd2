"""Starts a cluster on this machine, makes a run on it, and kills its leader and one of its machines meanwhile.

    python -m tests.nomad_cluster                                  # with Docker
    python -m tests.nomad_cluster --backend nomad-singularity      # with Apptainer
    python -m tests.nomad_cluster --silent                         # the machine vanishes without a word

Three servers and three clients, each with a loopback address of its own, all from one `nomad` program. The run is told
of the three servers, and first of the leader. Everything that was started is ended again, and nothing is left.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.nomad_cluster.images import image_settings
from tests.nomad_cluster.trial import Outcome, Size, run_on_a_cluster


def main() -> int:
    """Do it, print what was seen, and say by the exit code whether it was as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = Size()
    found = os.environ.get("HERMES_TEST_NOMAD") or shutil.which("nomad")
    parser.add_argument("--nomad", type=Path, default=found, help="the program; by default the one on PATH")
    parser.add_argument("--backend", choices=["nomad", "nomad-singularity"], default="nomad", help="which backend")
    parser.add_argument("-B", dest="pairs", action="append", default=[], metavar="KEY=VALUE", help="its configuration")
    parser.add_argument("--sandboxes", type=int, default=usual.sandboxes, help="sandboxes of the run")
    parser.add_argument("--rounds", type=int, default=usual.rounds, help="trajectories of each slot")
    parser.add_argument("--silent", action="store_true", help="the machine vanishes without a word (needs iptables)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args()
    if arguments.nomad is None:
        parser.error("there is no nomad on PATH; name it with --nomad PATH")
    size = Size(sandboxes=arguments.sandboxes, rounds=arguments.rounds)
    settings = image_settings(arguments.backend) | dict(pair.split("=", 1) for pair in arguments.pairs)
    with tempfile.TemporaryDirectory(prefix="hermes-cluster-", dir="/tmp") as folder:
        outcome = run_on_a_cluster(
            arguments.nomad, Path(folder), arguments.backend, settings, size, silent=arguments.silent
        )
    print(json.dumps(asdict(outcome), indent=2) if arguments.json else _table(outcome))
    return 0 if outcome.good else 1


def _table(outcome: Outcome) -> str:
    lines = ["seconds since the run began"]
    times = sorted(outcome.times.items(), key=lambda each: each[1] or 0.0)
    lines += [f"  {what:<50} {at:8.1f}" for what, at in times if at is not None]
    for title, figures in (("the run", outcome.run), ("the machine that was lost", outcome.machine)):
        lines += [title, *(f"  {what:<50} {figure!s:>8}" for what, figure in figures.items())]
    lines += ["warnings", *(f"  {at:8.1f}  {line}" for at, line in outcome.said)]
    lines.append(f"left are: {', '.join(outcome.left) or 'no jobs, no variables'}")
    lines.append("as it should be" if outcome.good else "NOT as it should be")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
