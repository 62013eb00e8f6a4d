"""What a fleet is told beside its resources: the chart writes it as JSON into one ConfigMap, the operator watches it.

It stands apart from the operator's own environment so that changing it restarts no operator, and so that upgrading the
operator changes nothing in it: the dataplane's image is a field here, never the operator's own image.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from voicefleet_contract.call_records import Addresses
from voicefleet_contract.networks import NetworkList
from voicefleet_contract.outside import OutsideError, parse_model
from voicefleet_contract.resources import Duration, Placement, Resources

CONFIG_KEY = "fleet.json"


class FleetConfigError(ValueError):
    """The fleet's ConfigMap is not what it must be; the text names the field."""


class _Config(BaseModel):
    # A field that is not known is of a later chart, or of an older one. (The chart's schema refuses misspelt values.)
    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True, allow_inf_nan=False
    )


class Cluster(_Config):
    """Who this fleet is among fleets. The id stands in every hint and call id: moving it ends every call."""

    id: int = Field(ge=0, le=0xFFFF)
    name: str = ""


class Dataplane(_Config):
    """How dataplane pods are made."""

    image: str
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    log_level: str = "info"
    priority_class_name: str = ""


class PipelineImage(_Config):
    """The dataplane's image with engines for voice pipelines in it. Empty: pipelines run in the dataplane's own."""

    image: str = ""


class Redis(_Config):
    """The registry. No URL: the fleet works without one."""

    url: str = ""
    password_secret: str = ""  # its key `password`


class GatewayService(_Config):
    """How callers reach the gateway."""

    type: str = "ClusterIP"
    port: int = 443
    node_port: int | None = None
    annotations: dict[str, str] = {}
    load_balancer_class: str | None = None


class Gateway(_Config):
    """The HTTPS front. ``enabled: false`` when another fleet's gateway serves this one."""

    enabled: bool = True
    replicas: int = 2
    pool: str = "default"
    region: str = ""
    latitude: float = 0.0
    longitude: float = 0.0
    https_secret: str = "voicefleet-gateway-https"
    api_keys_secret: str = "voicefleet-api-keys"
    allow_anonymous_calls: bool = False
    page: bool = True
    fleet_view_keys: tuple[str, ...] = ()  # names of API keys
    trusted_forwarders: NetworkList = ""
    proxy_protocol_from: NetworkList = ""
    max_unproved_connections: int = Field(default=256, ge=8)
    max_unproved_connections_per_client: int = Field(default=64, ge=1)
    ice_servers: str = ""
    service: GatewayService = GatewayService()
    placement: Placement = Placement()
    resources: Resources = Resources()


class Keys(_Config):
    """How key rings are rotated. ``rotation_period`` 0: only when somebody asks."""

    rotation_period: Duration = 30 * 86_400.0
    settle: Duration = 120.0  # longer than a kubelet may give a new pod the Secret of before


class CallRecords(_Config):
    """Where the records of ended calls go. The webhook's secret is the key `secret` of a Secret."""

    stdout: bool = True
    stream: bool = False
    keep: Duration = 7 * 86_400.0
    webhook_url: str = ""
    webhook_secret: str = ""
    addresses: Addresses = Addresses.TRUNCATED


class Tracing(_Config):
    """OpenTelemetry: where spans go (OTLP over HTTP). Empty: none are made, a caller's traceparent is passed on."""

    otlp_endpoint: str = ""


class FleetConfig(_Config):
    """The whole of it."""

    cluster: Cluster
    dataplane: Dataplane
    pipeline: PipelineImage = PipelineImage()
    redis: Redis = Redis()
    gateway: Gateway = Gateway()
    keys: Keys = Keys()
    call_records: CallRecords = CallRecords()
    tracing: Tracing = Tracing()


def unknown_fields(config: BaseModel, written: Mapping[str, Any], where: str = "") -> list[str]:
    """Return the fields of a document that this release knows nothing of."""
    found: list[str] = []
    names = {field.alias or name: name for name, field in type(config).model_fields.items()}
    for key, value in written.items():
        inner = getattr(config, names[key]) if key in names else None
        if key not in names:
            found.append(where + key)
        elif isinstance(inner, _Config) and isinstance(value, dict):
            found += unknown_fields(inner, value, f"{where}{key}.")
    return found


MAX_CONFIG_BYTES = 1 << 20  # Kubernetes' own bound of an object


def parse_config(data: dict[str, Any] | None) -> FleetConfig:
    """Read a ConfigMap's data. Raises FleetConfigError."""
    text = (data or {}).get(CONFIG_KEY)
    if text is None:
        raise FleetConfigError(f"the fleet's ConfigMap has no key {CONFIG_KEY}")
    try:
        return parse_model(FleetConfig, text, MAX_CONFIG_BYTES)
    except OutsideError as error:
        raise FleetConfigError(f"{CONFIG_KEY}: {error.param or 'document'}: {error}") from None
