"""`kubectl voicefleet`: its verbs, run by kubectl, on the fleet with a call in progress."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from e2e.fleet import NAMESPACE, POOL, Fleet
from e2e.kube import eventually
from e2e.talk import holding


def plugin(fleet: Fleet, *words: str) -> subprocess.CompletedProcess[str]:
    """Run it as a person does: kubectl finds the program on PATH."""
    programs = f"{Path(fleet.site.kubectl[0]).parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": programs, "KUBECONFIG": str(fleet.site.kubeconfig)}
    argv = ["kubectl", "voicefleet", "-n", NAMESPACE, *words]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=120)


async def test_the_plugin_says_how_the_fleet_is_and_follows_a_call(fleet: Fleet) -> None:
    async with holding(fleet, 1) as [caller]:
        call_id = caller.result.call_id

        def followed() -> bool:
            return (
                plugin(fleet, "trace", call_id).returncode == 0
                and "connected" in plugin(fleet, "trace", call_id).stdout
            )

        await asyncio.to_thread(eventually, "the call can be followed", followed, 60.0)
        hops = json.loads((await asyncio.to_thread(plugin, fleet, "trace", call_id, "-o", "json")).stdout)
        assert [hop["what"] for hop in hops] == ["call id", "session", "client", "relay", "owner", "node"]
        assert {hop["mark"] for hop in hops} == {"ok"}
        assert caller.result.ingress in hops[3]["says"]
        ufrag = await asyncio.to_thread(plugin, fleet, "trace", caller.result.ufrag)
        assert hops[4]["says"].split()[0] in ufrag.stdout
        status = await asyncio.to_thread(plugin, fleet, "status", "-o", "json")
        said = json.loads(status.stdout)
        assert [row["pool"] for row in said["pools"]] == [POOL]
        assert said["pools"][0]["sessions"] >= 1
        assert call_id in (await asyncio.to_thread(plugin, fleet, "top", "--once")).stdout
        planned = await asyncio.to_thread(plugin, fleet, "plan", "scale", POOL, "4")
        assert "calls in progress that move" in planned.stdout
        placed = await asyncio.to_thread(plugin, fleet, "explain", "placement", "--latitude=50", "--longitude=8")
        assert "ingress 1" in placed.stdout
        assert "owner 1" in placed.stdout
    nobody = await asyncio.to_thread(plugin, fleet, "trace", "nonsense")
    assert (nobody.returncode, nobody.stdout) == (1, "")
    assert nobody.stderr.startswith("error: ")
