"""The codes of protocol 1, by number and by name."""

REJECTIONS = {
    1: "Busy", 2: "TimedOut", 3: "NotHolder", 4: "InvalidLockName", 5: "InvalidNote",
    6: "InvalidIdentity", 7: "InvalidTtl", 8: "InvalidPermits", 9: "PermitsDiffer",
    10: "InvalidClaims", 11: "InvalidLockDelay", 12: "RequestIdReused", 13: "RequestForgotten",
    14: "TooManySessions", 15: "TooManyClaims", 16: "TooManyWaiters", 17: "UnknownSession",
    18: "StaleGeneration", 19: "Draining", 20: "Unavailable", 21: "NoSuchGrant",
    22: "SessionNeeded", 23: "Unsupported", 24: "ImplausibleToken", 25: "Grace", 26: "NoGrace",
    27: "SealMismatch", 28: "AlreadyHeld", 29: "Deadlock", 30: "TooManyWatches",
    31: "NotConvertible", 32: "InvalidAtLeast", 33: "TooManyKept", 34: "Superseded",
    35: "SlowDown", 36: "Unauthenticated", 37: "Forbidden",
}  # fmt: skip
LOST_REASONS = {
    1: "Expired", 2: "Revoked", 3: "Disconnected", 4: "Stopped", 5: "NotReclaimed", 6: "Conflict",
    7: "Forked", 8: "Refused",
}  # fmt: skip
GOODBYES = {
    1: "Done", 2: "ProtocolError", 3: "UnsupportedVersion", 4: "HandshakeTimeout",
    5: "IdleTimeout", 6: "TooManyConnections", 7: "Refused", 8: "SessionExpired", 9: "Superseded",
    10: "SlowReader", 11: "Draining", 12: "NotLeader",
}  # fmt: skip


class Rejection:
    """The rejection codes that this client acts upon."""

    BUSY, TIMED_OUT, NOT_HOLDER = 1, 2, 3
    REQUEST_FORGOTTEN, TOO_MANY_SESSIONS = 13, 14
    UNKNOWN_SESSION, STALE_GENERATION, DRAINING, UNAVAILABLE = 17, 18, 19, 20
    GRACE, ALREADY_HELD, DEADLOCK, SUPERSEDED = 25, 28, 29, 34
    UNAUTHENTICATED, FORBIDDEN = 36, 37


class Reason:
    """The lost reasons that this client gives itself."""

    EXPIRED, REVOKED, DISCONNECTED, STOPPED, NOT_RECLAIMED, CONFLICT = 1, 2, 3, 4, 5, 6
    FORKED, REFUSED = 7, 8


class Code:
    """The goodbye codes."""

    DONE, PROTOCOL_ERROR, UNSUPPORTED_VERSION, HANDSHAKE_TIMEOUT, IDLE_TIMEOUT = 1, 2, 3, 4, 5
    TOO_MANY_CONNECTIONS, REFUSED, SESSION_EXPIRED, SUPERSEDED = 6, 7, 8, 9
    SLOW_READER, DRAINING, NOT_LEADER = 10, 11, 12
