"""The errors of the client: whatever goes wrong is one of these.

Each text names the input, model or server that was at fault and the remedy. None of them ever
holds pixels or embeddings, so they may be logged.

    MstkdClientError
    ├── InvalidFace         an input is not one aligned 112x112 RGB face (also a ValueError)
    ├── InvalidSettings     a client was given settings that cannot work (also a ValueError)
    ├── InvalidDetector     a face detector's file or object is none (also a ValueError)
    ├── ClientClosed        the client was closed before or during the call
    ├── ServerUnavailable   no Triton answers at this URL
    ├── ModelNotReady       Triton answers, but the model is unknown or not loaded
    ├── DeadlineExceeded    the answer did not come within the timeout
    ├── Overloaded          the server's queue is full; the request may be sent again later
    ├── ContractMismatch    the model is not an MSTKD model, or two embeddings are not comparable
    ├── Unauthenticated     the server or the proxy before it refused the credentials
    ├── ServerFault         anything else, in Triton's own words
    └── MissingExtra        an optional package is not installed (also an ImportError)
"""
# ruff: noqa: N818 - the names say what happened; the base alone carries the suffix


class MstkdClientError(Exception):
    """Base of all errors of the client."""


class InvalidFace(MstkdClientError, ValueError):
    """An input is not one aligned 112x112 RGB face, or embeddings cannot be paired."""


class InvalidSettings(MstkdClientError, ValueError):
    """A client was given settings that cannot work; the text names the setting and its source."""


class InvalidDetector(MstkdClientError, ValueError):
    """A face detector is missing, damaged, or not one; the text names its file."""


class ClientClosed(MstkdClientError):
    """The client was closed, by this thread before or by another one meanwhile."""


class ServerUnavailable(MstkdClientError):
    """No Triton answers at this URL, or the connection or the model's process broke."""


class ModelNotReady(MstkdClientError):
    """The server answers, but does not serve the model: unknown, not loaded, or still loading."""


class DeadlineExceeded(MstkdClientError):
    """A server that had answered before did not answer within the timeout.

    Also raised where the request's time ran out in the server's queue.
    """


class Overloaded(MstkdClientError):
    """The server's queue is full. The same request may succeed later."""


class ContractMismatch(MstkdClientError):
    """The model is not one this client can use, or embeddings of two models were compared."""


class Unauthenticated(MstkdClientError):
    """The server, or a proxy before it, refused the credentials or the permission."""


class ServerFault(MstkdClientError):
    """The server failed in a way that has no type of its own; the text is Triton's."""


class MissingExtra(MstkdClientError, ImportError):
    """An optional package is needed; the text says which extra of mstkd-client brings it."""
