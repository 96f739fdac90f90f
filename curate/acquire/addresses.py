"""Connections that refuse addresses which are not the public internet's, checked on the address that is used.

Checking a name beforehand is not enough: the answer of DNS can change between the check and the connection. So the
name is resolved here, each address is judged, and the connection is made to that very address.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPResponse, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util import connection

from curate.acquire.failures import AddressRefused
from curate.acquire.watchdog import Watchdog

MOST_ADDRESSES = 4
"""Addresses of one name that are tried: a name can have as many dead ones as its owner likes."""

_METADATA = frozenset(map(ipaddress.ip_address, ("168.63.129.16", "192.0.0.192", "169.254.169.254", "fd00:ec2::254")))
"""Where clouds tell machines their secrets; the first two are public addresses by their number."""

# Written out, because what Python's `is_global` says has changed from version to version.
_REFUSED_V4 = tuple((ipaddress.IPv4Network(network), name) for network, name in (
    ("127.0.0.0/8", "loopback"), ("169.254.0.0/16", "link-local"), ("224.0.0.0/4", "multicast"),
    ("0.0.0.0/8", "unspecified"), ("10.0.0.0/8", "private"), ("172.16.0.0/12", "private"),
    ("192.168.0.0/16", "private"), ("100.64.0.0/10", "private"), ("192.0.0.0/24", "private"),
    ("192.0.2.0/24", "documentation"), ("198.51.100.0/24", "documentation"), ("203.0.113.0/24", "documentation"),
    ("192.88.99.0/24", "relay"), ("198.18.0.0/15", "benchmark"), ("240.0.0.0/4", "reserved"),
))  # fmt: skip
_NAMED_V6 = tuple((ipaddress.IPv6Network(network), name) for network, name in (
    ("::1/128", "loopback"), ("::/128", "unspecified"), ("fe80::/10", "link-local"), ("ff00::/8", "multicast"),
    ("fc00::/7", "private"),
))  # fmt: skip
_REFUSED_V6 = tuple((ipaddress.IPv6Network(network), name) for network, name in (
    ("2001::/23", "special-purpose"), ("2001:db8::/32", "documentation"), ("2002::/16", "6to4"),
    ("3fff::/20", "documentation"),
))  # fmt: skip
"""Blocks of the one part of IPv6 that is in public use, which are not: among them Teredo and other tunnels."""
_PUBLIC_V6 = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})
"""Third quarter of an address that carries an IPv4 one in its last, whatever the network before it."""


def why_not_public(address: str) -> str | None:
    """Why an IP address is not one of the public internet, or None where it is.

    Example:
        >>> why_not_public("127.0.0.1"), why_not_public("::ffff:10.0.0.1"), why_not_public("93.184.216.34")
        ('loopback', 'private', None)
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if ip in _METADATA:
        return "cloud metadata"
    if isinstance(ip, ipaddress.IPv4Address):
        return next((name for network, name in _REFUSED_V4 if ip in network), None)
    inner = str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    if ip in _NAT64:
        return why_not_public(inner)
    if ip in _MAPPED:
        return why_not_public(inner) or "IPv4-mapped"
    if ip not in _PUBLIC_V6:
        return next((name for network, name in _NAMED_V6 if ip in network), "special-purpose")
    if int(ip) >> 32 & 0xFFFFFFFF in _ISATAP:
        return "tunnel"
    return next((name for network, name in _REFUSED_V6 if ip in network), None)


class _Watched(HTTPConnection):
    watchdog: Watchdog

    def getresponse(self) -> HTTPResponse:  # type: ignore[override] # urllib3's, as in urllib3's own
        """Wait for the answer under the eyes of the watchdog."""
        self.watchdog.attach(self.sock)
        return super().getresponse()


class _WatchedTLS(_Watched, HTTPSConnection):
    pass


class _PublicOnly(_Watched):
    def _new_conn(self) -> socket.socket:
        host = self._dns_host
        try:
            found = socket.getaddrinfo(host, self.port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise NameResolutionError(host, self, error) from error
        except UnicodeError as error:
            raise NameResolutionError(host, self, socket.gaierror(str(error))) from error
        refused, failed, tried = "", None, 0
        for address in dict.fromkeys(str(entry[4][0]) for entry in found):
            if tried >= MOST_ADDRESSES:
                break
            if why := why_not_public(address):
                refused = f"{host} is {address}, a {why} address"
                continue
            tried += 1
            try:
                return connection.create_connection(
                    (address, self.port), self.timeout, self.source_address, self.socket_options
                )
            except OSError as error:
                failed = error
        if isinstance(failed, TimeoutError):
            raise ConnectTimeoutError(self, f"no connection to {host} in {self.timeout} s") from failed
        if failed is not None:
            raise NewConnectionError(self, f"no connection to {host}: {failed}") from failed
        raise AddressRefused(refused or f"{host} has no address")


class _PublicOnlyTLS(_PublicOnly, HTTPSConnection):
    pass


def pool_manager(*, allow_private_hosts: bool, watchdog: Watchdog, **options: Any) -> PoolManager:
    """A urllib3 pool manager whose connections are watched, and raise `AddressRefused` for what is not public."""
    plain, tls = (_Watched, _WatchedTLS) if allow_private_hosts else (_PublicOnly, _PublicOnlyTLS)

    class Plain(HTTPConnectionPool):
        ConnectionCls = type("Connection", (plain,), {"watchdog": watchdog})

    class TLS(HTTPSConnectionPool):
        ConnectionCls = type("ConnectionTLS", (tls,), {"watchdog": watchdog})

    manager = PoolManager(**options)
    manager.pool_classes_by_scheme = {"http": Plain, "https": TLS}
    return manager
