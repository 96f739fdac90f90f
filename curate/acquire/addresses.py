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

_METADATA = frozenset(map(ipaddress.ip_address, ("168.63.129.16", "192.0.0.192", "169.254.169.254", "fd00:ec2::254")))
"""Where clouds tell machines their secrets; the first two are public addresses by their number."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def why_not_public(address: str) -> str | None:
    """Why an IP address is not one of the public internet, or None where it is.

    Example:
        >>> why_not_public("127.0.0.1"), why_not_public("::ffff:10.0.0.1"), why_not_public("93.184.216.34")
        ('loopback', 'private', None)
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return why_not_public(str(inner))
    if ip in _METADATA:
        return "cloud metadata"
    for name in ("loopback", "link_local", "unspecified", "multicast"):
        if getattr(ip, f"is_{name}"):
            return name.replace("_", "-")
    return None if ip.is_global else "private"


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
        refused, failed = "", None
        for address in dict.fromkeys(str(entry[4][0]) for entry in found):
            if why := why_not_public(address):
                refused = f"{host} is {address}, a {why} address"
                continue
            try:
                return connection.create_connection(
                    (address, self.port), self.timeout, self.source_address, self.socket_options
                )
            except TimeoutError as error:
                raise ConnectTimeoutError(self, f"no connection to {address} in {self.timeout} s") from error
            except OSError as error:
                failed = error
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
