"""Lease slots, call tools, and run an environment from your own code."""

from __future__ import annotations

from tempfile import TemporaryDirectory

import anyio

from hermes_core import Hermes, ToolCall


async def main() -> None:
    async with Hermes(backend="local", backend_config={"slots_per_sandbox": 16}, toolsets=["terminal"]) as hermes:
        async with hermes.lease() as first, hermes.lease() as second:
            await first.write_file("secret.txt", "only here")
            results = await hermes.call_many(
                [
                    (first, ToolCall("terminal", {"command": "cat secret.txt"})),
                    (second, ToolCall("terminal", {"command": "cat secret.txt"})),
                ]
            )
            for result in results:
                print(result.output)
        with TemporaryDirectory() as folder:
            run = await hermes.run("arithmetic", model="oracle", tasks=4, group_size=2, out=f"{folder}/out")
            print(f"mean reward {run.statistics.mean_reward} over {run.statistics.trajectories} trajectories")


anyio.run(main)
