"""Ten calls at once: each hears itself alone, and lands on the owner that its hint names."""

from e2e.fleet import Fleet
from e2e.talk import control, place_calls
from voicefleet_contract import names
from voicefleet_contract.hint import peek_hint


def test_ten_calls_land_on_the_owners_that_their_hints_name(fleet: Fleet) -> None:
    before = totals(fleet)
    calls, summary = place_calls(fleet, 10)
    assert summary["answered"] == summary["audio_ok"] == 10, calls
    assert summary["loss"] == 0
    named: dict[int, int] = {}
    for call in calls:
        hint = peek_hint(call["ufrag"])
        named[hint.slot] = named.get(hint.slot, 0) + 1
    after = totals(fleet)
    assert {slot: after[slot] - before[slot] for slot in after if after[slot] != before[slot]} == named


def test_every_slot_gets_calls_over_two_relay_nodes_and_two_transceiver_nodes(fleet: Fleet) -> None:
    slots: set[int] = set()
    ingresses: set[str] = set()
    for _ in range(5):  # ten calls at a time; chance leaves a slot out of all fifty once in 10⁸
        calls, summary = place_calls(fleet, 10, seconds=1.0)
        assert summary["answered"] == 10, calls
        slots |= {peek_hint(call["ufrag"]).slot for call in calls}
        ingresses |= {call["ingress"] for call in calls}
        if len(slots) == 3 and len(ingresses) == 2:
            break
    pods = fleet.transceivers()
    assert slots == {int(pod["metadata"]["labels"][names.LABEL_SLOT]) for pod in pods}
    assert len({pod["spec"]["nodeName"] for pod in pods}) >= 2
    assert len(ingresses) == 2


def totals(fleet: Fleet) -> dict[int, int]:
    said = [control(fleet, pod, "/v1/status") for pod in fleet.transceivers()]
    return {status["slot"]: status["sessions_total"] for status in said}
