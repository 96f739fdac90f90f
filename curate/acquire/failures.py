"""Why an address gave nothing that may be used: every failure has a name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, IncompleteRead
from typing import Literal

from urllib3 import exceptions
from urllib3.exceptions import HTTPError, LocationValueError

from curate.errors import CurateError

HEAD = 16
"""First bytes that are told of a body which is not kept."""


class Stopped(CurateError):
    """The crawl was stopped while this address was waited for. Internal: leaves no line."""


class AddressRefused(CurateError):
    """A host has no address that may be connected to. Internal: becomes a line with its reason."""


class FetchFailure(CurateError):
    """An address gave no body that may be used. Internal: becomes a line of sources.jsonl.

    `outcome` is `failed` (no answer, or a bad one) or `rejected` (we do not want it); `reason` is one word. `again` is
    false where trying again in this run is of no use.
    """

    def __init__(
        self, outcome: Literal["failed", "rejected"], reason: str, detail: str, *, status: int | None = None,
        retry_after: float | None = None, again: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(f"{reason}: {detail}")
        self.outcome: Literal["failed", "rejected"] = outcome
        self.reason = reason
        self.detail = detail
        self.status = status
        self.retry_after = retry_after
        self.again = again
        self.final_url = ""
        self.content_type = ""
        self.size: int | None = None
        self.head = b""


@contextmanager
def named(url: str, body: bytearray | None = None) -> Iterator[None]:
    """Turn whatever goes wrong while `url` is fetched into a `FetchFailure` that says so.

    `body` is what has come of it so far: its size and first bytes are told, too.
    """
    try:
        yield
        return
    except FetchFailure as known:
        known.final_url = url
        if body is not None:
            known.size, known.head = len(body), bytes(body[:HEAD])
        raise
    except TimeoutError as error:
        failure = FetchFailure("failed", "timeout", str(error))
    except AddressRefused as error:
        failure = FetchFailure("rejected", "private_address", str(error))
    except (LocationValueError, UnicodeError) as error:
        failure = FetchFailure("rejected", "bad_url", str(error))
    except HTTPError as error:
        failure = FetchFailure("failed", _reason(error), str(error))
    except (OSError, HTTPException, ValueError) as error:  # what urllib3 lets through
        failure = FetchFailure("failed", "bad_response", f"{type(error).__name__}: {error}")
    failure.final_url = url
    if body is not None:
        failure.size, failure.head = len(body), bytes(body[:HEAD])
    raise failure


def _reason(error: HTTPError) -> str:
    cause = error.__cause__ or error.__context__
    inner = error.args[1] if len(error.args) > 1 else None
    if isinstance(error, exceptions.NameResolutionError):
        return "dns"
    if isinstance(error, exceptions.NewConnectionError):
        return "connection_refused" if isinstance(cause, ConnectionRefusedError) else "unreachable"
    if isinstance(error, (exceptions.ConnectTimeoutError, exceptions.ReadTimeoutError)):
        return "timeout"
    if isinstance(error, exceptions.SSLError):
        return "tls"
    if isinstance(error, IncompleteRead) or isinstance(inner, IncompleteRead):  # urllib3's is one, too
        return "incomplete"
    if isinstance(error, exceptions.ProtocolError) and isinstance(inner, ConnectionError):
        return "connection_reset"
    return "bad_encoding" if isinstance(error, exceptions.DecodeError) else "bad_response"
