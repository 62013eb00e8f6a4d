"""What leaves a call: by which path, and how much before the path has proved itself.

Media and data go by the path that ICE selected. While that one has no proof and its budget is spent, they go by the last
checked one that has, if there is one: a client that changes from one working path to another hears no gap, and one
whose old path is dead loses what it would have lost.

Owns: the choice, and asking for proof. Does not own: what is sent (core/call/session.py), the sums (core/call/path_budget.py), what a proof
is (core/call/path_proof.py), the socket.
"""

from collections.abc import Callable

from voicefleet_contract.addresses import Address
from voicefleet_contract.drops import DropReason
from voicefleet_dataplane.core.call.ice import IceAgent
from voicefleet_dataplane.core.call.path_proof import PathProof
from voicefleet_dataplane.core.call.paths import Path
from voicefleet_dataplane.core.call.reports import CallReports
from voicefleet_dataplane.core.call.srtp import Srtp


class Outgoing:
    """One call's."""

    __slots__ = ("_cname", "_drops", "_ice", "_reports", "_transmit", "proof", "srtp")

    def __init__(
        self,
        ice: IceAgent,
        reports: CallReports,
        cname: str,
        transmit: list[tuple[bytes, Address]],
        drops: dict[DropReason, int],
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._ice = ice
        self._reports = reports
        self._cname = cname
        self.srtp: Srtp | None = None  # from when it is connected
        self._transmit = transmit
        self._drops = drops
        self.proof = PathProof(random_bytes)

    def within_budget(self, path: Path, size_bytes: int) -> Path | None:
        """Return the path for a packet where ``path`` is the selected one and not proven; None, and counted: there is none."""
        if path.budget.may_send(size_bytes):
            return path
        proven = [other for other in self._ice.paths.values() if other.budget.is_proven]
        if not proven:
            self._drops[DropReason.PATH_NOT_PROVEN] += 1
        return max(proven, key=lambda other: other.alive_at, default=None)

    def media(self, packet: bytes) -> int:
        """Send RTP or RTCP; gives the bytes that left."""
        path = self._ice.selected
        if path is not None and not path.budget.is_proven:
            path = self.within_budget(path, len(packet))
        if path is None:
            return 0
        self._transmit.append(path.media(packet))
        return len(packet)

    def dtls(self, datagrams: list[bytes], flight: int | None) -> int:
        """Send datagrams of DTLS, of this flight of the handshake or of none; gives the bytes that left."""
        selected, sent_bytes = self._ice.selected, 0
        for datagram in datagrams if selected is not None else ():
            path = selected
            if path is not None and not path.budget.is_proven:
                if flight is None:
                    path = self.within_budget(path, len(datagram))
                elif not path.budget.may_send(len(datagram)):
                    self._drops[DropReason.DTLS_AMPLIFICATION] += 1  # repeated soon, when the client has sent more
                    continue
            if path is None:
                continue
            if flight is not None:
                self.proof.note_flight(flight, path)
            self._transmit.append((path.prefix + datagram, path.destination))
            sent_bytes += len(datagram)
        return sent_bytes

    def stun(self, message: bytes, path: Path) -> bool:
        """Send a word of ours to a path, if its budget has room."""
        if not path.budget.may_send(len(message)):
            return False
        self._transmit.append((path.prefix + message, path.destination))
        return True

    def ask_for_proof(self, now: float) -> None:
        """Ask the selected path of a connected call, if it has no proof and that is due."""
        path = self._ice.selected
        if self.srtp is None or path is None or path.budget.is_proven or now < path.budget.ask_at:
            return
        path.budget.note_asked(now)
        self._ask(path)
        self._report(self.srtp, path, now)

    def probe(self, now: float) -> None:
        """Ask at addresses that another call wants, where that is due."""
        for path in self._ice.paths.values():
            if path.probe_due() <= now:
                path.note_probe(sent=self._ask(path))

    def give_up(self, now: float) -> list[Address]:
        """Free addresses for the calls of another owner, by a word to the relay whose flows they are (docs/adr/0037); gives which."""
        given_up = self._ice.table.given_up(now)
        for path in given_up:
            if (refusal := path.refusal()) is not None:
                self.stun(refusal, path)
        return [path.client for path in given_up]

    def report_by_selected(self, now: float) -> int:
        """Send a report; gives the bytes that left."""
        self._reports.note_sent(now)
        path = self._ice.selected
        return 0 if self.srtp is None or path is None else self._report(self.srtp, path, now)

    def _ask(self, path: Path) -> bool:
        check = self.proof.build_check(path)
        return check is not None and self.stun(check, path)

    def _report(self, srtp: Srtp, path: Path, now: float) -> int:
        """Without a proof, it is one whose answer is a proof."""
        shift = 0 if path.budget.is_proven else self.proof.draw_shift()
        clear, last_report = self._reports.build(self._cname, now, shift)
        packet = srtp.protect_rtcp(clear)
        if not path.budget.may_send(len(packet)):
            return 0
        if shift and last_report:
            self.proof.note_report(last_report, path)
        self._transmit.append(path.media(packet))
        return len(packet)
