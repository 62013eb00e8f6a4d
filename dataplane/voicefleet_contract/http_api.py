"""Bodies of the control API (gateway → transceiver, mutual TLS) and the error body that callers of the gateway see.

| request                        | success                | refusal |
|---|---|---|
| ``POST /v1/sessions``          | 201 `SessionCreated`   | 422 `Refusal` (the offer), 503 `Refusal` + Retry-After (full, draining, busy) |
| ``POST /v1/sessions/{id}/listeners`` `CreateSession` | 201 `SessionCreated`: it hears that call's agent | as above, 404 `Refusal` |
| ``POST /v1/sessions/{id}/offer`` `Renegotiate` | 200 `Renegotiated` | 404, 422, 429 `Refusal` |
| ``POST /v1/sessions/{id}/ice`` `UpdateIce` | 200 `IceUpdated` | 404, 412, 429 `Refusal` |
| ``DELETE /v1/sessions/{id}``   | 200 `{}`               | 404 `Refusal` |
| ``GET /v1/sessions/{id}/events`` | 101, a WebSocket of the call's events | 404, 429 `Refusal` |
| ``GET /v1/sessions``           | 200 `SessionList`      | |
| ``GET /v1/status``             | 200 `SlotStatus`       | |
| ``POST /v1/drain`` `DrainOrder`| 202 `SlotStatus`       | 422 `Refusal` |

``tenant`` (of `UpdateIce` and `Renegotiate`, and of the other two requests about one session as a query parameter) must be the
call's, or there is no such call; a caller that names none may ask about any. DELETE with ``replaced``: the client is in another call
already, and is told no goodbye. The WebSocket ends with 1000 when the call does, and with 1008 for who does not read.

Each body states ``version``; a process takes the version before and after its own.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from voicefleet_contract.outside import finite
from voicefleet_contract.topology import Endpoint

VERSION = 1
MAX_OFFER_BYTES = 64 * 1024
MAX_SESSION_BYTES = 64 * 1024  # of JSON: instructions and tools of an agent
MAX_EVENT_BYTES = 256 * 1024  # of one JSON event, on a data channel or a WebSocket
MAX_WATCHERS = 8  # WebSockets of events per call
JSON_TYPE = "application/json"
SDP_TYPE = "application/sdp"


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)
    version: int = Field(default=VERSION, ge=VERSION - 1, le=VERSION + 1)


class CreateSession(_Body):
    """An offer for the owner. ``request_id`` makes a repeated request the same session (a gateway's retry).

    ``below`` asks the member to refuse (``busy``) when it holds so many sessions: contract.ring's bound. A member of a
    version before ignores it.
    """

    request_id: str = Field(min_length=8, max_length=64)
    offer: str = Field(max_length=MAX_OFFER_BYTES)
    candidates: tuple[Endpoint, ...] = Field(min_length=1, max_length=8)
    below: int | None = Field(default=None, ge=1)
    region: str = ""
    relay: str = ""
    tenant: str = ""
    traceparent: str = Field(default="", max_length=64)  # W3C: the gateway's span, or the caller's
    session: Annotated[
        dict[str, Any], AfterValidator(finite)
    ] = {}  # of the Realtime API: the request's, or the ephemeral key's
    # What the answer says of audio: as much as the offer allows (sendrecv), or one way. Empty: the offer's, mirrored.
    direction: Literal["", "sendrecv", "recvonly", "sendonly"] = ""
    whole: bool = False  # refuse an offer of which an m-line would be rejected
    keeps: bool = False  # answer media that is not taken as inactive, not as rejected
    chat: Literal["", "rtvi"] = ""  # what the data channel `chat` speaks; empty: it is the backend's


class SessionCreated(_Body):
    """The answer, and who owns the session; ``sessions`` is what it holds now."""

    call_id: str
    answer: str
    slot: int
    generation: int
    sessions: int | None = None
    ufrag: str = ""  # names the ICE session; empty from a member of a version before, which restarts none
    notice: str = (
        ""  # for people: what of the offer could not be taken, though the call is; empty too from a version before
    )


class UpdateIce(_Body):
    """What a client says of ICE in a running session: more candidates, or a restart when ``ice_ufrag`` is another one.

    ``if_match`` are the ICE sessions (our ufrags) that it may be about; ``*`` is any. Region and relay are of
    the ingress that the answer to a restart names.
    """

    tenant: str | None = None
    if_match: tuple[str, ...] = Field(max_length=16)
    ice_ufrag: str = Field(default="", max_length=256)  # empty: not said
    client_pwd: str = Field(default="", max_length=256)  # of that ufrag; empty too from a gateway of a version before
    region: str = ""
    relay: str = ""


class IceUpdated(_Body):
    """Our ICE session; ``ice_pwd`` only when it is a new one. ``mids`` are the sections of the answer's bundle."""

    restarted: bool
    ice_ufrag: str
    ice_pwd: str = ""
    mids: tuple[str, ...] = ()


class Renegotiate(_Body):
    """A later offer of a running session: other directions, more m-lines, other ICE credentials.

    With ``another_peer`` it is of another peer connection, which takes the place of the one before: the call goes on.
    """

    tenant: str | None = None
    offer: str = Field(max_length=MAX_OFFER_BYTES)
    candidates: tuple[Endpoint, ...] = Field(min_length=1, max_length=8)
    another_peer: bool = False
    region: str = ""
    relay: str = ""


class Renegotiated(_Body):
    """The answer."""

    answer: str


class RefusalReason(StrEnum):
    """503 for the first five (ask another member), 422 for the offer, 404 for an unknown call; 412 and 429 for `UpdateIce`, 429
    for one watcher too many.
    """

    FULL = "full"
    DRAINING = "draining"
    STARTING = "starting"
    OVERLOADED = "overloaded"
    BUSY = "busy"  # it has room, but holds more than its share
    OFFER = "offer"
    UNKNOWN_CALL = "unknown_call"
    OTHER_ICE_SESSION = "other_ice_session"
    TOO_MANY_RESTARTS = "too_many_restarts"
    WATCHED = "watched"  # by as many as there may be


class Refusal(_Body):
    """Why not. ``message`` is for people; ``param`` names the field of the offer."""

    reason: RefusalReason
    message: str
    param: str | None = None
    retry_after_s: int | None = None
    sessions: int | None = None  # what the member holds


class DrainOrder(_Body):
    """Take no new calls. Calls that are left after so long are hung up, one after the other; None: they are left alone.

    The newest order counts. An empty body is an order that says no time.
    """

    hang_up_after_s: float | None = Field(default=None, ge=0)


class SlotStatus(_Body):
    """A transceiver as it sees itself; counters since its start. Times are Unix seconds; None while it holds no session."""

    slot: int
    generation: int
    pool: str
    state: str
    sessions: int
    capacity: int
    sessions_total: int = 0
    oldest_started_at: float | None = None
    newest_started_at: float | None = None
    media_up: int = 0  # calls whose media came up …
    media_failed: int = 0  # … and did not in time (registry.FIRST_MEDIA_S)
    packets_in: int = 0
    packets_out: int = 0
    drops: dict[str, int] = {}
    control_refused: dict[str, int] = {}
    topology_revision: int = 0
    release: str = ""  # which one this process is of; those before 0.2.0 do not say


class SessionStatus(_Body):
    """One session. ``loss`` is a fraction 0–1; times in milliseconds are None until measured."""

    call_id: str
    ufrag: str
    state: str
    client: str | None = None  # ip:port
    relay: str | None = None  # inner ip:port
    age_s: float = 0.0
    rtt_ms: float | None = None
    jitter_ms: float | None = None
    loss: float | None = None
    packets_in: int = 0
    packets_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    ended_reason: str | None = None
    ended_detail: str | None = None


class SessionList(_Body):
    """The sessions that a transceiver holds."""

    sessions: tuple[SessionStatus, ...]


def error_body(
    code: str, message: str, *, param: str | None = None, kind: str = "invalid_request_error"
) -> dict[str, Any]:
    """Return the error body of the OpenAI Realtime API, which clients already parse."""
    return {"error": {"code": code, "message": message, "param": param, "type": kind}}
