"""Attack a fleet of real processes on loopback, and write what it cost to bench/results/attack.json.

``--quick`` lasts two seconds for each attack and writes nothing.
"""

import argparse
import asyncio
import inspect
import time
from dataclasses import dataclass

import httpx

from bench.attack.attacks import ATTACKS
from bench.attack.world import Harm, Outcome, Watch, World
from bench.report import Report
from voicefleet_dataplane.commands.dev import DevFleet

SECONDS, QUICK_SECONDS = 10.0, 2.0


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    name: str
    outcome: Outcome
    bystander: Harm
    victim: Harm
    cores_percent: float

    @property
    def is_harmless(self) -> bool:
        """Neither of the calls lost more than 0.1 %, nobody got more than three bytes for one, and no set-up failed."""
        extra = {what: value for (what, _), value in self.outcome.extra.items()}
        return (
            all(1_000 * harm.lost <= harm.frames for harm in (self.bystander, self.victim))
            and extra.get("bytes that the stranger got for one", 0) <= 3
            and not extra.get("set-ups that failed", 0)
        )


async def run(world: World, name: str, seconds: float) -> Result:
    """Attack, with a victim and a bystander who speak all the time."""
    async with world.talking() as victim, world.talking(victim.slot) as bystander:
        await asyncio.gather(world.hear(victim, 25), world.hear(bystander, 25))
        watches, cpu, began = (Watch(bystander), Watch(victim)), world.cpu_s(), time.monotonic()
        outcome = await ATTACKS[name](world, victim, seconds)
        spent = (world.cpu_s() - cpu) / (time.monotonic() - began)
        await asyncio.sleep(1.0)  # what is under way comes, or does not
        harms = [watch.harm() for watch in watches]
    return Result(name, outcome, harms[0], harms[1], 100 * spent)


async def attack(fleet: DevFleet, names: list[str], seconds: float) -> list[Result]:
    """Run attacks one after the other on one fleet."""
    results = []
    async with httpx.AsyncClient(verify=False, timeout=15, trust_env=False) as http:
        world = World(fleet, http)
        for number, name in enumerate(names, 1):
            print(f"{number} of {len(names)}: {name} …", flush=True)
            results.append(await run(world, name, seconds))
            print(f"  {describe(results[-1])}", flush=True)
    return results


def describe(result: Result) -> str:
    """One line for a person."""
    lost = f"lost {result.bystander.lost}/{result.bystander.frames} beside, {result.victim.lost}/{result.victim.frames} of the victim"
    extra = "".join(f"; {what} {value:g}" for (what, _), value in result.outcome.extra.items())
    verdict = "" if result.is_harmless else "; HARM"
    return f"{result.outcome.sent} sent; {lost}; {result.cores_percent:.0f} % of a core{extra}{verdict}"


def write(results: list[Result], seconds: float) -> None:
    """Write the file of which the table in docs/security.md is made (`make bench-docs`)."""
    report = Report("attack", seconds=seconds, fleet="relay and two transceivers on loopback, in user space")
    for one in results:
        sent = (inspect.getdoc(ATTACKS[one.name]) or "").splitlines()[0].rstrip(".")
        report.row("attacks", sent, "datagrams", "", [one.outcome.sent])
        report.row("attacks", sent, "lost beside it", "%", [100 * one.bystander.lost / one.bystander.frames])
        report.row("attacks", sent, "lost by the victim", "%", [100 * one.victim.lost / one.victim.frames])
        report.row("attacks", sent, "p99 of gaps beside it", "ms", [one.bystander.p99_gap_ms])
        report.row("attacks", sent, "CPU of relay and transceivers", "% of a core", [one.cores_percent])
        for (what, unit), value in one.outcome.extra.items():
            report.row("attacks", sent, what, unit, [value])
    print(report.write())


def main() -> int:
    """Exit with 1 when an attack did harm."""
    parser = argparse.ArgumentParser(prog="make attack ARGS=…", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two seconds an attack, and no file")
    parser.add_argument("--only", choices=ATTACKS, help="this attack alone, and no file")
    options = parser.parse_args()
    seconds = QUICK_SECONDS if options.quick else SECONDS
    with DevFleet(transceivers=2) as fleet:
        results = asyncio.run(attack(fleet, [options.only] if options.only else list(ATTACKS), seconds))
    if not options.quick and not options.only:
        write(results, seconds)
    return 0 if all(one.is_harmless for one in results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
