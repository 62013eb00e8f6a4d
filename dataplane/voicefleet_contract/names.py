"""Names that several processes must spell alike: Kubernetes group, labels, Secrets, files, DNS names, exit codes."""

GROUP = "voicefleet.dev"
API_VERSION = "v1alpha1"
FIELD_MANAGER = "voicefleet-operator"

# Labels. app.kubernetes.io/version never stands in a selector: it changes with an upgrade.
LABEL_NAME = "app.kubernetes.io/name"
LABEL_INSTANCE = "app.kubernetes.io/instance"
LABEL_COMPONENT = "app.kubernetes.io/component"
LABEL_PART_OF = "app.kubernetes.io/part-of"
LABEL_MANAGED_BY = "app.kubernetes.io/managed-by"
LABEL_RELAY = f"{GROUP}/relay"
LABEL_POOL = f"{GROUP}/pool"
LABEL_SLOT = f"{GROUP}/slot"
LABEL_GENERATION = f"{GROUP}/generation"
LABEL_PORT = f"{GROUP}/port"
LABEL_IDLE = f"{GROUP}/idle"  # no call for long: evictions may take the pod
ANNOTATION_SAFE_TO_EVICT = "cluster-autoscaler.kubernetes.io/safe-to-evict"

# What people write on a pod, a node or a Transceiver to drain it; contract.drain reads the value.
ANNOTATION_DRAIN = f"{GROUP}/drain"

# Secrets that the operator makes once
SECRET_HINT_KEYS = "voicefleet-hint-keys"
SECRET_CALL_KEYS = "voicefleet-call-keys"
SECRET_INNER_CA = "voicefleet-inner-ca"
KEYS_FILE = "keys.json"
TLS_CERT_FILE, TLS_KEY_FILE, TLS_CA_FILE = "tls.crt", "tls.key", "ca.crt"


def tls_secret(role: str) -> str:
    """Return the Secret with a role's inner certificate."""
    return f"voicefleet-{role}-tls"


def inner_dns_name(role: str) -> str:
    """Return the DNS name in a role's certificate: what the other side checks, since addresses move."""
    return f"{role}.voicefleet.internal"


# Where Secrets are mounted in dataplane pods
ETC = "/etc/voicefleet"

# With which a role ends when somebody else holds its port: the operator then gives the slot another number.
EXIT_PORT_TAKEN = 98  # Linux' EADDRINUSE

# The aggregated API server of sessions
SESSIONS_API_SERVICE = f"v1alpha1.sessions.{GROUP}"
EXTERNAL_METRICS_API_SERVICE = "v1beta1.external.metrics.k8s.io"  # opt-in: a cluster has one provider
SESSIONS_SERVICE = "voicefleet-sessions"
