"""Settings of each role, read once at start from environment variables ``VOICEFLEET_<FIELD>``.

Whoever makes the pods (the operator) and whoever runs in them read the same models, so a setting cannot be misspelt on
one side. A wrong value stops the process at start with the variable's name and what it should be.

Owns: names, types, defaults. Does not own: what a Kubernetes resource calls them.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from voicefleet_contract import names
from voicefleet_contract.addresses import normalise
from voicefleet_contract.networks import NetworkList
from voicefleet_contract.outside import parse_number

PREFIX = "VOICEFLEET_"
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_AMOUNT = r"[0-9]{1,12}(?:\.[0-9]{1,12})?"
_PLAIN_SECONDS = re.compile(_AMOUNT)
_DURATION = re.compile(rf"(?:{_AMOUNT}(?:ms|[smh])){{1,8}}")
_DURATION_PART = re.compile(rf"({_AMOUNT})(ms|[smh])")


class SettingsError(ValueError):
    """One or more settings are missing or wrong; the text names each variable and what it should be."""


def parse_duration_s(value: object) -> float:
    """Return seconds of ``90``, ``"90"``, ``"90s"``, ``"60m"``, ``"1h30m"``. Raises ValueError."""
    if isinstance(value, (int, float)):
        return float(value)
    text = str(value)
    if _PLAIN_SECONDS.fullmatch(text):
        return parse_number(text)
    if not _DURATION.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is not a duration: write for example 30s, 60m or 1h30m")
    parts = _DURATION_PART.findall(text)
    return sum((parse_number(number) * (0.001 if unit == "ms" else _SECONDS[unit]) for number, unit in parts), 0.0)


Seconds = Annotated[float, BeforeValidator(parse_duration_s), Field(ge=0)]
Host = Annotated[str, BeforeValidator(lambda value: normalise(str(value)))]
Port = Annotated[int, Field(ge=0, le=65535)]  # 0: any free one (tests, `voicefleet dev`)
# The first four are VoiceRelay's; the others name one way to attach, for benches and tests.
Datapath = Literal["Auto", "TC", "XDP", "Userspace", "TCX", "Clsact", "XDPNative", "XDPGeneric"]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read every field from ``VOICEFLEET_<FIELD>``. Raises SettingsError naming the variables."""
        values = {name: environment[key] for name in cls.model_fields if (key := PREFIX + name.upper()) in environment}
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            lines = (
                f"{PREFIX}{str(e['loc'][0]).upper()}: {e['msg']}" if e["loc"] else e["msg"] for e in error.errors()
            )
            raise SettingsError("; ".join(lines)) from None

    def to_environment(self) -> dict[str, str]:
        """Return the variables that `from_environment` reads, defaults left out."""
        dumped = self.model_dump(exclude_defaults=True, mode="json")
        return {
            PREFIX + name.upper(): ("true" if value is True else "false" if value is False else str(value))
            for name, value in sorted(dumped.items())
        }


class _Inner(_Settings):
    """What every dataplane process has: its place, its keys, its topology."""

    cluster_id: int = Field(ge=0, le=0xFFFF)
    process_name: str = "local"  # the pod's name: in metrics, acknowledgements and records
    node_name: str = ""
    namespace: str = ""
    topology: str = "kubernetes"  # or the path of a topology file
    redis_url: str = ""  # empty: no registry
    redis_password_file: str = ""
    tls_dir: str = f"{names.ETC}/tls"  # tls.crt, tls.key, ca.crt: the inner mutual TLS
    otlp_endpoint: str = ""  # OpenTelemetry collector, http://host:4318; empty: no spans of our own
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class RelaySettings(_Inner):
    """A relay: one public UDP port, one inner UDP port (the same number on TCP serves health and metrics)."""

    public_address: Host = "0.0.0.0"
    public_port: Port = 3478
    inner_address: Host  # the node's own address: transceivers send here
    inner_port: Port = 3479
    hint_keys_file: str = f"{names.ETC}/hint-keys/{names.KEYS_FILE}"
    max_flows: int = Field(default=200_000, ge=1)  # what each takes of memory: docs/relay-capacity.md
    flow_idle_timeout_s: Seconds = 30.0
    workers: int = Field(default=1, ge=1, le=64)  # processes; with more than one, inner ports follow inner_port
    leave_grace_s: Seconds = 2.0  # readiness is gone so long before the sockets close
    drain_deadline_s: Seconds = 3600.0  # how long flows are waited for where the ingress is withdrawn
    failed_checks_per_second: float = Field(default=5_000.0, ge=0)  # of strangers, all together; 0: no limit
    failed_checks_per_second_per_network: float = Field(default=100.0, ge=0)  # a /24 or /48
    new_flows_per_second_per_network: float = Field(default=500.0, ge=0)  # twenty times as many in a burst
    relay_name: str = ""  # the VoiceRelay: with node_name, the identity of what is pinned; empty: the public port
    datapath: Datapath = "Userspace"
    bpffs: str = "/sys/fs/bpf"
    fastpath_object: str = ""  # another BPF object than the packaged one
    fastpath_interfaces: str = ""  # comma-separated; empty: every Ethernet interface with an address

    @field_validator("datapath")
    @classmethod
    def _workers_are_user_space(cls, value: Datapath, info: ValidationInfo) -> Datapath:
        if value != "Userspace" and info.data.get("workers", 1) > 1:
            raise ValueError("several workers forward in user space: set Userspace here, or VOICEFLEET_WORKERS to 1")
        return value


class TransceiverSettings(_Inner):
    """A transceiver: one slot, one port number (UDP media, TCP control API)."""

    pool: str = "default"
    slot: int = Field(ge=0, le=0xFFFFFF)
    generation: int = Field(ge=0, le=0xFFFF)
    inner_address: Host
    port: Port
    hint_keys_file: str = f"{names.ETC}/hint-keys/{names.KEYS_FILE}"
    call_keys_file: str = f"{names.ETC}/call-keys/{names.KEYS_FILE}"
    capacity: int = Field(default=400, ge=1)
    max_duration_s: Seconds = 3600.0
    idle_timeout_s: Seconds = 60.0  # neither side says anything
    setup_timeout_s: Seconds = 30.0  # from the offer to the first authenticated check and DTLS
    drain_deadline_s: Seconds = 3600.0
    backend: Literal["Echo", "OpenAIRealtime", "MediaStream", "OpusStream", "Pipeline"] = "Echo"
    backend_url: str = ""  # of the agent's WebSocket, or of the pipeline's hook
    backend_fallback_urls: str = ""  # separated by spaces: tried in their order when the first does not answer
    backend_key_file: str = ""  # sent as a bearer token; empty: none
    backend_profile: Literal["OpenAI", "OpenAIBeta", "vLLM"] = "OpenAI"
    backend_network: Literal["Public", "Private", "Loopback"] = "Public"
    backend_connect_timeout_s: Seconds = 5.0
    backend_warm_connections: int = Field(default=1, ge=0, le=16)  # ready for the next calls, while there are calls
    backend_reconnect_s: Seconds = 0.0  # how long a lost agent is looked for; 0: its call ends
    pipeline_voice_activity: str = "Silero"  # engines by the names of their entry points (docs/pipeline.md)
    pipeline_speech_to_text: str = "PocketSphinx"
    pipeline_speech_to_text_timeout_s: Seconds = 10.0  # from the end of an utterance to its words
    pipeline_text: str = "Hook"
    pipeline_text_model: str = ""  # what the hook is asked for; empty: default
    pipeline_text_timeout_s: Seconds = 15.0  # without a word of an answer
    pipeline_text_to_speech: str = "Hibari"
    pipeline_text_to_speech_timeout_s: Seconds = 10.0  # without a sound of a sentence
    pipeline_voice: str = ""  # empty: the engine's own
    pipeline_processes: int = Field(default=1, ge=1, le=64)  # of engines: one a core that they may fill
    pipeline_utterances: int = Field(default=4, ge=1, le=64)  # recognised at once in each
    pipeline_hang_up_on_failure: bool = False  # a stage that fails ends the call; else it goes on with the next turn
    dtls_role: Literal["active", "passive"] = "active"
    srtp_profiles: Literal["default", "gcm"] = "default"  # gcm: only AES-GCM, cheaper for us, not every client has it
    accept_direct: bool = False  # bare packets without a relay: tests only
    call_records_stdout: bool = True  # one JSON line for each call that ended
    call_records_stream: bool = False  # the same into a Redis stream
    call_records_keep_s: Seconds = 7 * 86_400.0  # how long that stream keeps them
    call_records_webhook_url: str = ""  # the same as signed POSTs
    call_records_webhook_secret_file: str = ""
    call_record_addresses: Literal["Truncated", "Full"] = "Truncated"  # of clients: /24 and /48, or whole

    @model_validator(mode="after")
    def _has_what_its_backend_needs(self) -> Self:
        if self.backend == "Pipeline":
            if self.pipeline_text == "Hook" and not self.backend_url:
                raise ValueError("backend_url: the text handler Hook needs it")
        elif (self.backend == "Echo") == bool(self.backend_url):
            raise ValueError("backend_url: every backend but Echo needs it, Echo takes none")
        return self


class GatewaySettings(_Inner):
    """A gateway: HTTPS for callers, an inner port for health and metrics."""

    public_address: Host = "0.0.0.0"
    public_port: Port = 8443
    inner_address: Host = "0.0.0.0"
    inner_port: Port = 9090
    https_dir: str = f"{names.ETC}/https"  # tls.crt, tls.key; empty: plain HTTP (behind an ingress that ends TLS)
    call_keys_file: str = f"{names.ETC}/call-keys/{names.KEYS_FILE}"
    api_keys_dir: str = f"{names.ETC}/api-keys"  # one bearer key a file, its name is the tenant
    allow_anonymous_calls: bool = False
    page: bool = True  # at `/`: for people to talk to an agent, and to look at the fleet
    fleet_view_keys: str = ""  # comma-separated names of API keys that may see the fleet (GET /v1/fleet)
    pool: str = "default"  # which pool takes calls that name none
    region: str = ""
    latitude: float = Field(default=0.0, ge=-90, le=90)
    longitude: float = Field(default=0.0, ge=-180, le=180)
    geo_database: str = ""  # path of a MaxMind database
    trusted_forwarders: NetworkList = ""  # comma-separated networks whose X-Forwarded-For is believed
    proxy_protocol_from: NetworkList = ""  # comma-separated networks whose connections begin with a PROXY header
    max_unproved_connections: int = Field(default=256, ge=8)  # without an accepted key
    max_unproved_connections_per_client: int = Field(default=64, ge=1)  # of an address, or an IPv6 /64
    unfinished_timeout_s: Seconds = 10.0  # a PROXY header and TLS; a request's head; a body gets twice as long
    ice_servers: str = ""  # comma-separated stun: and stuns: URIs that WHIP and WHEP clients are told; ours need none
    max_offer_bytes: int = Field(default=64 * 1024, ge=1024, le=1024 * 1024)
    max_concurrent_requests: int = Field(default=256, ge=1)
    max_concurrent_requests_per_key: int = Field(default=128, ge=1)
    max_concurrent_requests_per_client: int = Field(default=32, ge=1)
    calls_per_second_per_key: float = Field(default=50.0, gt=0)
    calls_per_second_per_client: float = Field(default=10.0, gt=0)
    max_sidebands: int = Field(default=1024, ge=1)  # WebSockets beside calls
    max_sidebands_per_key: int = Field(default=256, ge=1)
    owner_timeout_s: Seconds = 2.0  # for one transceiver's answer, before the next is asked
    leave_grace_s: Seconds = 5.0

    @field_validator("ice_servers")
    @classmethod
    def _stun_uris(cls, value: str) -> str:
        for uri in filter(None, map(str.strip, value.split(","))):
            if not re.fullmatch(r"stuns?:[A-Za-z0-9.\-\[\]:]+(\?transport=(udp|tcp))?", uri):
                raise ValueError(f"{uri!r} is not a STUN URI: write for example stun:stun.example.net:3478")
        return value


class OperatorSettings(_Settings):
    """The operator: where it works. What the fleet is stands in the fleet's ConfigMap, so that it restarts for neither."""

    namespace: str = Field(min_length=1)
    fleet_config: str = "voicefleet-fleet"  # the ConfigMap
    kubeconfig: str = ""  # empty: the pod's service account
    process_name: str = "local"  # the pod's name: holder of the Lease
    lease: str = "voicefleet-operator"  # empty: no Lease (one process, on a developer's machine)
    watch_silence_s: Seconds = (
        70.0  # a watch is opened anew after so long without a word; the server speaks each minute
    )
    health_address: Host = "0.0.0.0"
    health_port: Port = 8080
    redis_password_file: str = ""
    see_foreign_pods: bool = False  # the host ports of other namespaces' pods: needs the right to read pods everywhere
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class SessionsApiSettings(_Settings):
    """The aggregated API server: one port for kube-apiserver, one for probes and metrics."""

    namespace: str = Field(min_length=1)
    cluster_id: int = Field(ge=0, le=0xFFFF)
    kubeconfig: str = ""  # empty: the pod's service account
    redis_url: str = ""  # empty: no registry; every request is then answered with 503
    redis_password_file: str = ""
    tls_dir: str = f"{names.ETC}/tls"  # tls.crt, tls.key, ca.crt: shown to kube-apiserver, and to transceivers
    address: Host = "0.0.0.0"
    port: Port = 8443
    health_address: Host = "0.0.0.0"
    health_port: Port = 8080
    log_level: Literal["debug", "info", "warning", "error"] = "info"
