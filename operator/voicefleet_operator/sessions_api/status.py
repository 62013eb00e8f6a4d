"""Kubernetes' Status object: what the API server says when it says no. Pure."""

from typing import Any

from voicefleet_operator.sessions_api.resource import GROUP, PLURAL

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    410: "Expired",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class StatusError(Exception):
    """A refusal: HTTP code, and words for whoever asked."""

    def __init__(self, code: int, message: str, *, retry_after_s: int | None = None, cause: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.retry_after_s, self.cause = code, message, retry_after_s, cause

    def body(self, name: str = "") -> dict[str, Any]:
        """Return the Status."""
        details: dict[str, Any] = {"group": GROUP, "kind": PLURAL}
        if name:
            details["name"] = name
        if self.retry_after_s is not None:
            details["retryAfterSeconds"] = self.retry_after_s
        if self.cause:
            details["causes"] = [{"reason": self.cause, "message": self.message}]
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": _REASONS.get(self.code, "Unknown"),
            "details": details,
            "code": self.code,
        }


def success(name: str, uid: str) -> dict[str, Any]:
    """Return the Status of something done to an object."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {"group": GROUP, "kind": PLURAL, "name": name, "uid": uid},
    }
