"""Who asks, and may they? Kubernetes' own answers to both.

*Authentication*: kube-apiserver's aggregation layer, the front proxy, presents a client certificate of the CA that the ConfigMap
kube-system/extension-apiserver-authentication names, and says in headers whom it speaks for. Headers from anybody else
are worth nothing: 401. *Authorisation*: a SubjectAccessReview for each request, its answer kept for a few seconds.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.x509.oid import NameOID

from voicefleet_contract.outside import parse_json
from voicefleet_listener.guard import prove
from voicefleet_operator.cluster.api import KubeApi, KubeError
from voicefleet_operator.sessions_api.resource import GROUP, PLURAL, VERSION
from voicefleet_operator.sessions_api.status import StatusError

_MAX_NAMES_BYTES = 64 * 1024
_KEPT_S = 10.0
_MOST_KEPT = 4_096


@dataclass(frozen=True, slots=True)
class User:
    """As the front proxy says."""

    name: str
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class FrontProxy:
    """How to know the aggregation layer, and which headers it writes."""

    ca: str
    allowed_names: frozenset[str]
    user_headers: tuple[str, ...]
    group_headers: tuple[str, ...]
    extra_prefixes: tuple[str, ...]

    @classmethod
    def parse(cls, data: Mapping[str, str]) -> "FrontProxy":
        """Read the ConfigMap's data. Raises ValueError when the cluster has no aggregation layer."""
        ca = data.get("requestheader-client-ca-file", "")
        if not ca:
            raise ValueError(
                "kube-system/extension-apiserver-authentication has no requestheader-client-ca-file: "
                "this cluster's API server aggregates nothing; set sessionsApi.enabled: false"
            )

        def names(key: str) -> tuple[str, ...]:
            return tuple(map(str, parse_json(data.get(key) or "[]", _MAX_NAMES_BYTES)))

        return cls(
            ca,
            frozenset(names("requestheader-allowed-names")),
            names("requestheader-username-headers"),
            names("requestheader-group-headers"),
            names("requestheader-extra-headers-prefix"),
        )

    def authenticate(self, request: web.Request) -> User:
        """Return who asks. Raises StatusError 401."""
        certificate = request.transport.get_extra_info("ssl_object") if request.transport is not None else None
        raw = certificate.getpeercert(binary_form=True) if isinstance(certificate, ssl.SSLObject) else None
        if raw is None:
            raise StatusError(401, "only kube-apiserver's aggregation layer may ask here: no client certificate")
        subject = x509.load_der_x509_certificate(raw).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        if self.allowed_names and (not subject or subject[0].value not in self.allowed_names):
            raise StatusError(401, "the client certificate is not the front proxy's")
        name = next((request.headers[header] for header in self.user_headers if header in request.headers), "")
        if not name:
            raise StatusError(401, "the front proxy names no user")
        groups = tuple(value for header in self.group_headers for value in request.headers.getall(header, ()))
        extra = {
            key[len(prefix) :].lower(): tuple(request.headers.getall(key))
            for prefix in self.extra_prefixes
            for key in request.headers
            if key.lower().startswith(prefix.lower())
        }
        prove()
        return User(name, groups, tuple(sorted(extra.items())))


@dataclass(frozen=True, slots=True)
class Action:
    """What somebody wants to do."""

    verb: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    resource: str = PLURAL
    group: str = GROUP
    version: str = VERSION


class Authorizer:
    """Asks kube-apiserver, and remembers its answers for a while."""

    def __init__(self, api: KubeApi) -> None:
        self._api = api
        self._kept: dict[tuple[User, Action], tuple[float, str]] = {}

    async def require(self, user: User, action: Action) -> None:
        """Raises StatusError 403; 503 when kube-apiserver does not answer."""
        known = self._kept.get((user, action))
        if known is None or known[0] < monotonic():
            known = (monotonic() + _KEPT_S, await self._ask(user, action))
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[user, action] = known
        if known[1]:
            raise StatusError(403, known[1])

    async def _ask(self, user: User, action: Action) -> str:
        """Return why not; empty: allowed."""
        attributes = {
            "group": action.group,
            "version": action.version,
            "resource": action.resource,
            "verb": action.verb,
            "namespace": action.namespace,
            "name": action.name,
            "subresource": action.subresource,
        }
        review: dict[str, Any] = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user.name,
                "groups": list(user.groups),
                "extra": {key: list(values) for key, values in user.extra},
                "resourceAttributes": {key: value for key, value in attributes.items() if value},
            },
        }
        try:
            status = (await self._api.create("SubjectAccessReview", review)).get("status", {})
        except KubeError as error:
            raise StatusError(503, f"access cannot be reviewed now: {error}", retry_after_s=1) from None
        if status.get("allowed"):
            return ""
        what = f"{action.resource}/{action.subresource}" if action.subresource else action.resource
        where = f' in the namespace "{action.namespace}"' if action.namespace else " at the cluster scope"
        reason = f": {status['reason']}" if status.get("reason") else ""
        return f'User "{user.name}" cannot {action.verb} resource "{what}" in API group "{action.group}"{where}{reason}'
