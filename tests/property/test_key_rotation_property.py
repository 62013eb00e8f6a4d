"""Whatever processes, kubelets, the registry and time do: a rotation costs no call.

A fleet of processes that each work with some version of the Secret. They read the newest one when they please. A new pod may
be given one that is up to `settle_s` old; within the margin it has the newest one, or else has told what it works with. The
registry knows what they told it last, or has forgotten it, or is away.
"""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from voicefleet_operator.desired.keys.key_rotation import LONGEST_CALL_S, MARGIN_S, Pace, Process, Ring, Wish, decide

PACE = Pace(period_s=5 * 86_400.0, settle_s=120.0)


@dataclass
class Pod:
    name: str
    signs: bool
    files: Ring
    due: float  # when it has the newest files, or a slow one has at least told
    slow: bool
    told: Ring | None = None


class World:
    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.ring = Ring(frozenset({1}), 1, self.now)
        self.versions = [(self.now, self.ring)]
        self.pods: dict[str, Pod] = {}
        self.made = 0
        self.away = False
        self.last_signed: dict[int, float] = {}
        self.steps: list[str] = []
        for signs in (True, False):
            self.add(signs=signs, age_s=0)

    def add(self, *, signs: bool, age_s: float, slow: bool = False) -> None:
        """A new pod, given the Secret as it was so long ago."""
        seen_at = self.now - min(age_s, PACE.settle_s)
        files = [ring for at, ring in self.versions if at <= seen_at] or [self.versions[0][1]]
        self.made += 1
        self.pods[f"pod-{self.made}"] = Pod(f"pod-{self.made}", signs, files[-1], self.now + MARGIN_S / 2, slow)

    def one(self, number: int) -> Pod | None:
        names = sorted(self.pods)
        return self.pods[names[number % len(names)]] if names else None

    def pass_time(self, seconds: float) -> None:
        self._note_signers()
        end = self.now + seconds
        for pod in sorted(self.pods.values(), key=lambda pod: pod.due):
            if pod.due <= end:
                self.now = max(self.now, pod.due)
                if pod.signs:
                    self.last_signed[pod.files.signing] = self.now
                if pod.slow:
                    pod.told = pod.files
                else:
                    pod.files = self.ring
                pod.due = float("inf")
        self.now = end
        self._note_signers()

    def _note_signers(self) -> None:
        for pod in self.pods.values():
            if pod.signs:
                self.last_signed[pod.files.signing] = self.now

    def operate(self, wish: Wish | None = None) -> None:
        said = None if self.away else [self._said(pod) for pod in self.pods.values()]
        decision = decide(self.ring, wish, said, PACE, self.now)
        for epoch in self.ring.epochs - decision.ring.epochs:
            assert self.now >= self.last_signed.get(epoch, 0.0) + LONGEST_CALL_S, f"{epoch} retired under its calls"
        if self.away:
            assert decision.ring == self.ring
        if decision.ring != self.ring:
            self.ring = decision.ring
            self.versions.append((self.now, self.ring))
        self.steps += [decision.step] if decision.step else []

    def _said(self, pod: Pod) -> Process:
        if pod.told is None:
            return Process(pod.name, pod.signs)
        return Process(pod.name, pod.signs, pod.told.epochs, pod.told.signing if pod.signs else None)

    def check(self) -> None:
        assert self.ring.signing in self.ring.epochs
        signed = {pod.files.signing for pod in self.pods.values() if pod.signs}
        for pod in self.pods.values():
            assert self.ring.signing in pod.files.epochs, "signed before everybody holds it"
            assert signed <= pod.files.epochs, "somebody signs with what another does not hold"


LONG_WAITS_S = (3_600.0, 40_000.0, LONGEST_CALL_S - MARGIN_S, LONGEST_CALL_S + MARGIN_S - 1.0, 200_000.0, 500_000.0)
# Weighted so that rotations come to their end, in between all that may happen to them.
_WEIGHTS = {
    "read": 3,
    "tell": 3,
    "report": 6,
    "report all": 2,
    "wait": 3,
    "long wait": 4,
    "add": 3,
    "remove": 1,
    "away": 1,
    "forget": 1,
    "wish": 2,
}
ACTIONS = st.tuples(
    st.sampled_from([name for name, weight in _WEIGHTS.items() for _ in range(weight)]), st.integers(0, 200)
)


def act(world: World, action: str, number: int) -> None:
    pod = world.one(number)
    if action == "wish":
        world.operate(Wish.NOW)
    elif action == "remove" and pod is not None:
        del world.pods[pod.name]
    elif action == "add":
        world.add(signs=number % 4 > 0, age_s=float(number), slow=number % 3 == 0)
    elif action == "forget" and pod is not None:
        pod.told = None
    elif action == "away":
        world.away = not world.away
    elif action == "wait":
        world.pass_time(number / 2)
    elif action == "long wait":
        world.pass_time(LONG_WAITS_S[number % len(LONG_WAITS_S)])
    for each in world.pods.values() if action == "report all" else [pod] if pod is not None else []:
        if action in ("read", "report", "report all"):
            each.files = world.ring
        if action in ("tell", "report", "report all"):
            each.told = each.files
    world.operate()


@examples(300)
@given(st.lists(ACTIONS, min_size=20, max_size=150))
def test_no_epoch_signs_too_early_or_goes_too_early(actions):
    world = World()
    for action, number in actions:
        act(world, action, number)
        world.check()


@given(st.lists(ACTIONS, max_size=40))
def test_when_things_calm_down_the_ring_is_rotated_and_the_old_epochs_go(actions):
    world = World()
    for action, number in actions:
        act(world, action, number)
    world.away = False
    before = world.ring.signing
    for _ in range(40):
        act(world, "report all", 0)
        world.pass_time(86_400.0)
        world.check()
    assert world.ring.signing != before
    assert len(world.ring.epochs) <= 3
