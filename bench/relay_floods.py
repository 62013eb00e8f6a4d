"""Calls in progress while strangers send many times their packets: half media of no flow, half forged checks.

The forged checks name the right cluster and a member that exists, so that they cost what a forged check can: the tag is wrong
in half of them, MESSAGE-INTEGRITY in the other half.
"""

import json

from bench.netns import Namespaces
from bench.relay_dial import open_sockets
from bench.relay_load import Flows, sending
from bench.relay_ours import OurRelay, Tcx, forged_checks
from bench.report import Report

_CALLS, _PACKETS_PER_S, _STRANGERS = 10, 50, 64
_TIMES = (10, 40)


def floods(namespaces: Namespaces, report: Report, seconds: float) -> None:
    """What ten calls lose, how busy the relay is, and what strangers get for each byte that they sent."""
    for kind in (OurRelay, Tcx):
        way = kind(namespaces)
        way.start()
        try:
            calls = Flows(way, _CALLS)
            for times in _TIMES:
                pps = _CALLS * _PACKETS_PER_S * times
                strangers = open_sockets(namespaces, way.client_host, way.destination, _STRANGERS, 40_000)
                forged = forged_checks(_STRANGERS)
                rates = {"pps": pps / 2, "check_s": _STRANGERS / (pps / 2)}
                with sending(strangers, forged, warmup_s=0.0, seconds=seconds + 1.5, **rates) as flood:
                    sample = calls.measure(_CALLS * _PACKETS_PER_S, seconds)
                    assert flood.stdout is not None
                    flood.stdout.readline(), flood.stdout.readline()
                    got = json.loads(flood.stdout.readline())["bytes_in"]
                for one in strangers:
                    one.close()
                who = f"{way.name}: {times} times the calls' packets"
                report.row("floods", who, "lost by the calls", "%", [100 * sample.lost])
                report.row("floods", who, "relay's core busy", "%", [100 * sample.relay_busy])
                report.row("floods", who, "bytes that the strangers got", "B", [got])
            calls.close()
        finally:
            way.stop()
