"""Every error that the platform raises on purpose.

    PlatformError
    ├── InvalidArgument     a value the caller gave is wrong           400 INVALID_ARGUMENT
    ├── Unauthenticated     the caller did not say who it is           401 UNAUTHENTICATED
    ├── NotFound            what the caller named does not exist       404 NOT_FOUND
    ├── FailedPrecondition  the system is not in a state to do it      409 FAILED_PRECONDITION
    │   ├── AnomaliesFound  data that contradicts its schema
    │   └── GateRefused     a model that did not earn its blessing
    ├── ResourceExhausted   no room: disk, memory, queue               429 RESOURCE_EXHAUSTED
    ├── Unavailable         try again later                            503 UNAVAILABLE
    ├── DeadlineExceeded    the caller no longer waits                 504 DEADLINE_EXCEEDED
    └── DataCorrupt         a file is not what was written             500 DATA_LOSS

A message says what is wrong and where, what was expected, what came, and what to do next.
"""


class PlatformError(Exception):
    """Base of the tree: a command prints its message alone, a server answers with its status."""

    http_status = 500
    grpc_status = "INTERNAL"


class InvalidArgument(PlatformError):
    """A value that the caller gave is wrong."""

    http_status = 400
    grpc_status = "INVALID_ARGUMENT"


class Unauthenticated(PlatformError):
    """The caller did not say who it is, or not so that it can be believed."""

    http_status = 401
    grpc_status = "UNAUTHENTICATED"


class NotFound(PlatformError):
    """What the caller named does not exist."""

    http_status = 404
    grpc_status = "NOT_FOUND"


class FailedPrecondition(PlatformError):
    """The request is sound, but the system is not in a state to carry it out."""

    http_status = 409
    grpc_status = "FAILED_PRECONDITION"


class AnomaliesFound(FailedPrecondition):
    """Data contradicts its schema."""


class GateRefused(FailedPrecondition):
    """A model did not earn its blessing."""


class ResourceExhausted(PlatformError):
    """There is no room left: disk, memory or a bounded queue."""

    http_status = 429
    grpc_status = "RESOURCE_EXHAUSTED"


class Unavailable(PlatformError):
    """The service cannot answer now; a later try may succeed."""

    http_status = 503
    grpc_status = "UNAVAILABLE"


class DeadlineExceeded(PlatformError):
    """The caller no longer waits for the answer."""

    http_status = 504
    grpc_status = "DEADLINE_EXCEEDED"


class DataCorrupt(PlatformError):
    """A file is not what was written."""

    grpc_status = "DATA_LOSS"
