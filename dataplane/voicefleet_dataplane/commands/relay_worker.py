"""One worker of a relay with several (shell/relay/workers.py): settings from the environment, sockets from its supervisor.

python -m voicefleet_dataplane.commands.relay_worker INDEX PUBLIC_FD INNER_FD HEALTH_FD
"""

import ctypes
import os
import signal
import socket
import sys

from voicefleet_contract.settings import RelaySettings
from voicefleet_dataplane.commands.roles import run_until_signal
from voicefleet_dataplane.shell.relay.process import RelaySockets, run_relay

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run until a signal, or the supervisor's death, ends it."""
    index, *descriptors = map(int, sys.argv[1:])
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    _pin(index)
    settings = RelaySettings.from_environment(os.environ)
    sockets = RelaySockets(*(socket.socket(fileno=descriptor) for descriptor in descriptors))
    run_until_signal("relay", settings.log_level, run_relay(settings, sockets))


def _pin(index: int) -> None:
    """Stay on one core, so that a client's packets and its flow meet in one cache."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[index % len(cores)]})


if __name__ == "__main__":
    main()
