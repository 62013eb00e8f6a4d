"""`make demo`: a real Kubernetes, a fleet on it, ten concurrent calls with recorded speech through it."""

import subprocess
import sys
import time

from e2e.cluster.__main__ import main as cluster
from e2e.cluster.steps import ClusterError, fail, say
from e2e.fleet import Fleet
from e2e.kube import KubeError

CALLS = 10


def main() -> int:
    """Run it; exits 1 unless all calls are well."""
    began = time.monotonic()
    if code := cluster(["up", "--images"]):
        return code
    fleet = None
    try:
        fleet = Fleet()
        fleet.install()
        fleet.wait_ready()
    except (ClusterError, KubeError, AssertionError) as error:
        if fleet is not None:
            print(fleet.explain(), file=sys.stderr)
        return fail(error if isinstance(error, ClusterError) else ClusterError(str(error)))
    say("\n$ kubectl get voicerelays,transceivers -n voice")
    say(fleet.kube.run("get", "voicerelays,transceivers"))
    say("$ kubectl get pods -n voice -o wide")
    say(fleet.kube.run("get", "pods", "-o", "wide"))
    command = ["voicefleet", "call", fleet.url, "--count", str(CALLS), "--concurrency", str(CALLS), "--insecure"]
    say(f"{time.monotonic() - began:8.1f} s  fleet up; now: {' '.join(command)} --key …\n")
    program = [sys.executable, "-m", "voicefleet_dataplane", *command[1:], "--key", fleet.api_key]
    return subprocess.run(program, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
