"""`make demo`: a real Kubernetes, a fleet on it, ten concurrent calls with recorded speech through it, one spoken question answered."""

import shlex
import subprocess
import sys
import tempfile
import time

from e2e.cluster.__main__ import main as cluster
from e2e.cluster.steps import ClusterError, fail, say
from e2e.fleet import Fleet
from e2e.kube import KubeError, eventually

CALLS = 10
QUESTION = "Can you call my mother on the telephone?"
_PARROTS = """\
apiVersion: voicefleet.dev/v1alpha1
kind: Transceiver
metadata: {name: parrots}
spec:
  replicas: 1
  ports: {min: 20400, max: 20409}
  capacity: {sessions: 10}
  backend: {type: Pipeline, pipeline: {text: {handler: Repeat}}}
  drain: {deadline: 5s, policy: HangUp}
"""


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
    if code := subprocess.run(program, check=False).returncode:
        return code
    return _ask(fleet)


def _ask(fleet: Fleet) -> int:
    """A pool of voice pipelines hears a question and answers it with speech."""
    if fleet.site.images.get("pipeline", "") == "":
        say("\nno spoken question: VOICEFLEET_IMAGE_PIPELINE names no image with engines")
        return 0
    say("\n$ kubectl apply -n voice: Transceiver parrots, backend Pipeline, text handler Repeat")
    fleet.kube.apply(_PARROTS)
    try:
        eventually("pool parrots is Ready", lambda: fleet.condition("transceiver", "parrots"), within_s=120)
        with tempfile.TemporaryDirectory() as folder:  # in a voice that the pipeline does not have
            command = ["flite", "-voice", "rms", "-t", QUESTION, "-o", f"{folder}/question.wav"]
            say(f"$ {shlex.join(command)}")
            subprocess.run(command, check=True)
            command = ["voicefleet", "ask", fleet.url, "--pool", "parrots", "--insecure", "--wav", command[-1]]
            say(f"$ {shlex.join(command)} --key …\n")
            program = [sys.executable, "-m", "voicefleet_dataplane", *command[1:], "--key", fleet.api_key]
            return subprocess.run(program, check=False).returncode
    except AssertionError as error:
        print(fleet.explain(), file=sys.stderr)
        return fail(ClusterError(str(error)))
    finally:
        fleet.kube.run("delete", "transceiver", "parrots", "--wait=false")


if __name__ == "__main__":
    sys.exit(main())
