"""The specs of our Kubernetes resources as Python sees them. crds/ holds the schemas; a test holds both equal."""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from voicefleet_contract.settings import parse_duration_s

Duration = Annotated[float, BeforeValidator(parse_duration_s)]


class _Spec(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)


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
    """Fixed addresses, or one taken from the node."""

    addresses: tuple[str, ...] = ()
    from_: AdvertiseFrom | None = Field(default=None, alias="from")


class Placement(_Spec):
    """Which nodes."""

    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, object], ...] = ()


class Flows(_Spec):
    """Bounds of a relay's flow table."""

    idle_timeout: Duration = 30.0
    max: int = 1_000_000


class VoiceRelaySpec(_Spec):
    """Relays at one location: host-network pods on the chosen nodes."""

    location: Location
    port: int = 3478
    inner_port: int = 3479
    advertise: Advertise = Advertise()
    placement: Placement = Placement()
    datapath: str = "Auto"
    flows: Flows = Flows()


class PortRange(_Spec):
    """Host ports that a pool may use, both ends included."""

    min: int
    max: int


class Capacity(_Spec):
    """How many sessions one transceiver takes."""

    sessions: int = 400


class SessionLimits(_Spec):
    """When a session ends by itself."""

    max_duration: Duration = 3600.0
    idle_timeout: Duration = 60.0


class DrainPolicy(StrEnum):
    """What a drain does with sessions."""

    MIGRATE = "Migrate"
    WAIT = "Wait"
    HANG_UP = "HangUp"


class Drain(_Spec):
    """How a member leaves."""

    deadline: Duration = 3600.0
    policy: DrainPolicy = DrainPolicy.WAIT


class Backend(_Spec):
    """What the sessions talk to."""

    type: str = "Echo"


class TransceiverSpec(_Spec):
    """A pool of transceivers."""

    replicas: int = 1
    ports: PortRange
    capacity: Capacity = Capacity()
    session: SessionLimits = SessionLimits()
    backend: Backend = Backend()
    drain: Drain = Drain()
    placement: Placement = Placement()
