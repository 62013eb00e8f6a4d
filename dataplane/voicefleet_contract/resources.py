"""The specs of our Kubernetes resources as Python reads them. crds/ holds the schemas; a test holds both equal.

Admission (crds/) has refused what a single object can get wrong before any of this is parsed, so these models only
read. Unknown fields are ignored: the CRD may be one version ahead of a process.
"""

import math
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from voicefleet_contract.outside import parse_number
from voicefleet_contract.settings import parse_duration_s

Duration = Annotated[float, BeforeValidator(parse_duration_s)]


class _Spec(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        populate_by_name=True,
        validate_default=True,
        allow_inf_nan=False,
    )


class Location(_Spec):
    """Where a relay stands, for great-circle distances."""

    region: str
    latitude: float
    longitude: float


class AdvertiseFrom(StrEnum):
    """Which of a node's addresses clients are told."""

    NODE_EXTERNAL_IP = "NodeExternalIP"
    NODE_INTERNAL_IP = "NodeInternalIP"
    LOAD_BALANCER = "LoadBalancer"


class Advertise(_Spec):
    """Fixed addresses, or one taken from each node. Neither means ``from: NodeExternalIP``."""

    addresses: tuple[str, ...] = ()
    from_: AdvertiseFrom | None = Field(default=None, alias="from")


class Placement(_Spec):
    """Which nodes."""

    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, Any], ...] = ()


class Resources(_Spec):
    """CPU and memory of one pod, as Kubernetes spells them."""

    requests: dict[str, str | int | float] = {}
    limits: dict[str, str | int | float] = {}


class Flows(_Spec):
    """Bounds of a relay's flow table."""

    idle_timeout: Duration = "30s"  # type: ignore[assignment]  # validate_default parses it: the CRD's spelling
    max: int = 200_000


class RelayDrain(_Spec):
    """How a relay leaves where its ingress is withdrawn."""

    deadline: Duration = "60m"  # type: ignore[assignment]


MOST_WORKERS = 32


_UNITS = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0} | {
    prefix + binary: float(base) ** (power + 1)
    for power, prefix in enumerate("kMGTPE")
    for binary, base in (("", 1000), ("i", 1024))
}


def _cores(cpu: str | float) -> float:
    """Return cores of a Kubernetes quantity of CPU. Admission has refused what is none."""
    text = str(cpu)
    number = text.rstrip("numkKMGTPEi")
    return parse_number(number) * _UNITS[text[len(number) :].replace("K", "k")]


class Datapath(StrEnum):
    """How a relay moves packets."""

    AUTO = "Auto"
    XDP = "XDP"
    TC = "TC"
    USERSPACE = "Userspace"


class VoiceRelaySpec(_Spec):
    """Relays at one location: host-network pods on the chosen nodes."""

    location: Location
    port: int = 3478
    inner_port: int = 3479
    advertise: Advertise = Advertise()
    placement: Placement = Placement()
    datapath: Datapath = Datapath.AUTO
    workers: int | None = None
    flows: Flows = Flows()
    drain: RelayDrain = RelayDrain()
    resources: Resources = Resources()

    @property
    def worker_count(self) -> int:
        """How many processes forward: as said, or one for each CPU requested. One beside a kernel path."""
        if self.datapath is not Datapath.USERSPACE:
            return 1
        if self.workers is not None:
            return self.workers
        above = self.port if self.port > self.inner_port else 65_536  # inner ports follow each other
        return max(
            1, min(math.ceil(_cores(self.resources.requests.get("cpu", 1))), MOST_WORKERS, above - self.inner_port)
        )

    @property
    def inner_ports(self) -> range:
        """The inner UDP port of each worker; the first is the health port's number too."""
        return range(self.inner_port, self.inner_port + self.worker_count)


class PortRange(_Spec):
    """Host ports that a pool may use, both ends included."""

    min: int
    max: int

    @property
    def size(self) -> int:
        """How many numbers."""
        return self.max - self.min + 1

    def __contains__(self, port: int) -> bool:
        return self.min <= port <= self.max


class Capacity(_Spec):
    """How many sessions one transceiver takes."""

    sessions: int = 400


class SessionLimits(_Spec):
    """When a session ends by itself."""

    max_duration: Duration = "60m"  # type: ignore[assignment]
    idle_timeout: Duration = "60s"  # type: ignore[assignment]


class DrainPolicy(StrEnum):
    """What a drain does with sessions."""

    MIGRATE = "Migrate"
    WAIT = "Wait"
    HANG_UP = "HangUp"


class Drain(_Spec):
    """How a member leaves."""

    deadline: Duration = "60m"  # type: ignore[assignment]
    policy: DrainPolicy = DrainPolicy.WAIT


class SecretKey(_Spec):
    """A key of a Secret in the same namespace."""

    name: str
    key: str


class BackendType(StrEnum):
    """Who speaks at the other end of a session."""

    ECHO = "Echo"
    OPENAI_REALTIME = "OpenAIRealtime"
    MEDIA_STREAM = "MediaStream"
    OPUS_STREAM = "OpusStream"
    PIPELINE = "Pipeline"


class BackendProfile(StrEnum):
    """Which dialect of the Realtime API."""

    OPENAI = "OpenAI"
    OPENAI_BETA = "OpenAIBeta"
    VLLM = "vLLM"


class BackendNetwork(StrEnum):
    """Where a backend may live."""

    PUBLIC = "Public"
    PRIVATE = "Private"


class OnFailure(StrEnum):
    """What a lost backend means for its call."""

    HANG_UP = "HangUp"
    RECONNECT = "Reconnect"


class VoiceActivity(_Spec):
    """What tells speech from noise."""

    engine: str = "Silero"


class SpeechToText(_Spec):
    """What makes words of speech."""

    engine: str = "PocketSphinx"
    timeout: Duration = "10s"  # type: ignore[assignment]


class TextHandler(_Spec):
    """Who answers words with words."""

    handler: str = "Hook"
    model: str | None = None
    timeout: Duration = "15s"  # type: ignore[assignment]


class TextToSpeech(_Spec):
    """What makes speech of words."""

    engine: str = "Hibari"
    voice: str | None = None
    timeout: Duration = "10s"  # type: ignore[assignment]


class OnStageFailure(StrEnum):
    """What a stage that fails means for its call."""

    CONTINUE = "Continue"
    HANG_UP = "HangUp"


class Pipeline(_Spec):
    """The stages of a voice pipeline."""

    voice_activity: VoiceActivity = VoiceActivity()
    speech_to_text: SpeechToText = SpeechToText()
    text: TextHandler = TextHandler()
    text_to_speech: TextToSpeech = TextToSpeech()
    processes: int = 1
    utterances_per_process: int = 4
    on_failure: OnStageFailure = OnStageFailure.CONTINUE


class Backend(_Spec):
    """What the sessions talk to."""

    type: BackendType = BackendType.ECHO
    url: str | None = None
    fallback_urls: tuple[str, ...] = ()
    secret_ref: SecretKey | None = None
    profile: BackendProfile | None = None
    network: BackendNetwork = BackendNetwork.PUBLIC
    connect_timeout: Duration = "5s"  # type: ignore[assignment]
    warm_connections: int = Field(default=1, ge=0, le=16)
    on_failure: OnFailure = OnFailure.HANG_UP
    reconnect_timeout: Duration = "10s"  # type: ignore[assignment]
    pipeline: Pipeline = Pipeline()


class Rollout(_Spec):
    """How many slots move at once: new generations that have yet to prove themselves, and slots without a ready one."""

    max_surge: int = 1
    max_unavailable: int = 0
    min_ready: Duration = "10s"  # type: ignore[assignment]


class Autoscaling(_Spec):
    """How the operator chooses replicas. Utilisation is owned sessions per capacity, in percent."""

    min_replicas: int = 1
    max_replicas: int
    target_utilization: int = 60
    setups_per_second: int | None = None
    buffer_sessions: int = 0
    scale_up_stabilization: Duration = "0s"  # type: ignore[assignment]
    scale_down_stabilization: Duration = "5m"  # type: ignore[assignment]


class TransceiverSpec(_Spec):
    """A pool of transceivers."""

    replicas: int = 1
    autoscaling: Autoscaling | None = None
    ports: PortRange
    capacity: Capacity = Capacity()
    session: SessionLimits = SessionLimits()
    backend: Backend = Backend()
    drain: Drain = Drain()
    rollout: Rollout = Rollout()
    placement: Placement = Placement()
    resources: Resources = Resources()
    image: str | None = None
