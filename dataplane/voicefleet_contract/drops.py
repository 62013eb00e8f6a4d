"""Why a packet was dropped: one enum for counters, metrics, tests and, later, the BPF program.

A dropped packet gets silence on the wire and moves exactly one of these.
"""

from enum import StrEnum, unique


@unique
class DropReason(StrEnum):
    """Each value is a metric label: never rename one without a release note."""

    # Before anybody knows whose packet it is
    EMPTY = "empty"
    TOO_LONG = "too_long"
    UNKNOWN_KIND = "unknown_kind"  # first byte outside RFC 7983's ranges
    STUN_MALFORMED = "stun_malformed"
    STUN_NOT_REQUEST = "stun_not_request"
    STUN_NO_USERNAME = "stun_no_username"
    STUN_UNKNOWN_ATTRIBUTE = "stun_unknown_attribute"  # comprehension-required (RFC 8489 §14)
    STUN_BAD_FINGERPRINT = "stun_bad_fingerprint"
    STUN_BAD_INTEGRITY = "stun_bad_integrity"
    # The hint (reasons of HintError)
    HINT_MALFORMED = "hint_malformed"  # length, alphabet
    HINT_VERSION = "hint_version"
    HINT_KEY_EPOCH = "hint_key_epoch"
    HINT_TAG = "hint_tag"
    HINT_OTHER_CLUSTER = "hint_other_cluster"
    # Strangers' share of a relay (core/relay/check_limits.py)
    CHECK_LIMIT_OF_NETWORK = "check_limit_of_network"  # too many checks of this /24 or /48 have failed
    CHECK_LIMIT = "check_limit"  # … of all together
    FLOW_LIMIT_OF_NETWORK = "flow_limit_of_network"  # authentic, but too many new flows of this /24 or /48
    # Ownership
    OWNER_UNKNOWN = "owner_unknown"  # no such slot or generation in the topology
    OWNER_GONE = "owner_gone"
    SESSION_UNKNOWN = "session_unknown"  # a transceiver has no session of this ufrag
    # Flows of a relay
    FLOW_UNKNOWN = "flow_unknown"  # media from an address that no check has bound
    FLOW_LOOKUP_PENDING = "flow_lookup_pending"  # …while the flow cache is being asked, and enough is held already
    FLOW_LOOKUP_LIMIT = "flow_lookup_limit"  # …and the flow cache is asked no faster: a later packet asks again
    FLOW_TABLE_FULL = "flow_table_full"
    FLOW_OF_ANOTHER_OWNER = "flow_of_another_owner"  # return traffic of an owner that does not hold the flow
    # The inner side
    SPP_MALFORMED = "spp_malformed"
    SPP_FROM_STRANGER = "spp_from_stranger"  # not from a relay (or transceiver) of the topology
    SPP_WRONG_RELAY = "spp_wrong_relay"  # the header names a relay address that is not ours
    ANNOUNCEMENT_FORGED = "announcement_forged"  # or for another owner, or under a key that we do not hold
    ANNOUNCEMENT_STALE = "announcement_stale"  # repeated, overtaken, or of a relay whose clock is far off
    DIRECT_NOT_ACCEPTED = "direct_not_accepted"  # a bare packet where only SPP is taken
    # Inside a session
    ICE_REPLAY = "ice_replay"  # a transaction seen from another address
    ICE_WRONG_CLIENT = "ice_wrong_client"  # the client's half of USERNAME is not the offer's ufrag
    ICE_TUPLE_TAKEN = "ice_tuple_taken"  # an authentic check from an address on which another session is alive
    ADDRESS_NOT_CHECKED = "address_not_checked"  # DTLS or media from an address without an authenticated check
    DTLS_MALFORMED = "dtls_malformed"
    DTLS_AMPLIFICATION = "dtls_amplification"  # not sent: three times the bytes received are spent
    PATH_NOT_PROVEN = "path_not_proven"  # not sent, media or data: the same, of a connected call's path
    SRTP_NOT_READY = "srtp_not_ready"
    SRTP_AUTH = "srtp_auth"
    SRTP_REPLAY = "srtp_replay"
    SRTP_MALFORMED = "srtp_malformed"
    SCTP_MALFORMED = "sctp_malformed"
    SCTP_WRONG_TAG = "sctp_wrong_tag"
    SCTP_NO_ROOM = "sctp_no_room"  # past the window that it was told, or one stream too many
    # A client's share of its own call (core/call/budgets.py)
    AUDIO_RATE = "audio_rate"  # more audio than time has passed, or an SSRC too many: not even opened
    KEYPAD_RATE = "keypad_rate"
    RTCP_RATE = "rtcp_rate"
    DATA_RATE = "data_rate"
    RTP_UNEXPECTED = "rtp_unexpected"  # authentic, but of a payload type or one SSRC too many that nobody agreed on
    SESSION_ENDED = "session_ended"
    # Our own side
    SEND_FAILED = "send_failed"  # the socket buffer was full, or no route
