"""Hint and call keys are rotated under a call in progress: it goes on, new calls carry the new epoch, hang-ups work."""

import asyncio
import base64

from e2e.fleet import Fleet
from e2e.kube import eventually
from e2e.talk import calling, hang_up, place_calls
from voicefleet_contract import names
from voicefleet_contract.call_id import PREFIX
from voicefleet_contract.hint import peek_hint
from voicefleet_contract.keys import KeyRing

RINGS = (names.SECRET_HINT_KEYS, names.SECRET_CALL_KEYS)
# Kubelets bring a changed Secret within a minute or two, twice: the published epoch, and then that it signs.
WITHIN_S = 240.0


async def test_a_call_goes_on_while_its_keys_are_rotated_and_new_calls_carry_the_new_epoch(fleet: Fleet) -> None:
    before = {ring: signing(fleet, ring) for ring in RINGS}
    async with calling(fleet, seconds=2 * WITHIN_S) as caller:
        for ring in RINGS:
            await asyncio.to_thread(fleet.kube.run, "annotate", "secret", ring, "voicefleet.dev/rotate=now")
        await asyncio.to_thread(
            eventually, "both rings sign with another epoch", lambda: moved(fleet, before), WITHIN_S
        )
        after = {ring: signing(fleet, ring) for ring in RINGS}

        def new_calls_carry_it() -> bool:
            calls, summary = place_calls(fleet, 3, seconds=1.0)
            assert summary["answered"] == 3, calls
            assert summary["loss"] == 0, calls  # relays and gateways held the epoch before anybody signed with it
            hints = {peek_hint(call["ufrag"]).key_epoch for call in calls}
            ids = {base64.urlsafe_b64decode(call["id"].removeprefix(PREFIX))[0] & 0x1F for call in calls}
            return (hints, ids) == ({after[names.SECRET_HINT_KEYS]}, {after[names.SECRET_CALL_KEYS]})

        await asyncio.to_thread(eventually, "new calls carry the new epochs", new_calls_carry_it, WITHIN_S)
        heard = max(caller.result.heard)
        await asyncio.sleep(5)  # more than two consent checks of the old epoch, verified anew
        assert max(caller.result.heard) >= heard + 200
        assert set(range(heard, heard + 200)) <= set(caller.result.heard)
        status = await asyncio.to_thread(hang_up, fleet, caller.result.call_id)  # an id of the old epoch
    assert status == 200
    assert caller.result.error == "the other side ended the call"
    for ring in RINGS:  # the old epochs still verify: their calls may last
        assert before[ring] in keys(fleet, ring).epochs


def keys(fleet: Fleet, ring: str) -> KeyRing:
    return KeyRing.parse(fleet.kube.secret(ring)[names.KEYS_FILE])


def signing(fleet: Fleet, ring: str) -> int:
    return keys(fleet, ring).signing


def moved(fleet: Fleet, before: dict[str, int]) -> bool:
    assert all(signing(fleet, ring) != before[ring] for ring in RINGS), [
        fleet.kube.get("secret", ring)["metadata"]["annotations"] for ring in RINGS
    ]
    return True
