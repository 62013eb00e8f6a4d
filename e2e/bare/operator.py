"""The operator as a process of this machine, and two of them."""

from e2e.bare.plane import BareControlPlane
from e2e.bare.process import OurProcess
from e2e.cluster.steps import ClusterError, wait_until

_ACCOUNT = "voicefleet-operator"


class OperatorProcess(OurProcess):
    """One operator. ``lease``: its Lease, or none."""

    def __init__(
        self,
        plane: BareControlPlane,
        namespace: str,
        *,
        url: str = "",
        name: str = "operator",
        lease: str = "",
        watch_silence_s: float = 70.0,
        see_foreign_pods: bool = False,
    ) -> None:
        settings = {
            "process_name": name,
            "lease": lease,
            "watch_silence_s": watch_silence_s,
            "see_foreign_pods": str(see_foreign_pods).lower(),
        }
        super().__init__(plane, namespace, name, "voicefleet_operator", _ACCOUNT, settings, url)

    def wait_leading(self, within_s: float = 60.0) -> None:
        """Wait until it leads. Raises ClusterError with its log."""

        def leads() -> bool:
            if self.process.poll() is not None:
                raise ClusterError("the operator has ended", self.log)
            return self.ask("/readyz") == (200, "leading\n")

        wait_until("the operator", leads, within_s=within_s, log=self.log)


def leader_and_standby(first: OperatorProcess, second: OperatorProcess) -> tuple[OperatorProcess, OperatorProcess]:
    """Wait until both of two operators answer and one of them leads. There are never two leaders."""

    def leaders() -> list[OperatorProcess]:
        return [one for one in (first, second) if one.ask("/readyz") == (200, "leading\n")]

    def settled() -> bool:
        assert len(leaders()) <= 1
        return all(one.ask("/readyz")[0] == 200 for one in (first, second)) and bool(leaders())

    wait_until("two operators, of which one leads", settled, within_s=60.0, log=first.log)
    [leader] = leaders()
    return (first, second) if leader is first else (second, first)
