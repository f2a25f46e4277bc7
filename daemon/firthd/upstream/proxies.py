"""The only place that reads which proxies the environment names, and for which hosts they are not meant."""

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from msgspec import Struct

_PORTS = {"http": 80, "https": 443}


class Proxies(Struct, frozen=True):
    """Proxies by the scheme that is asked for, and the hosts that are asked without one."""

    by_scheme: Mapping[str, str] = {}
    direct: tuple[str, ...] = ()

    def through(self, url: str) -> str | None:
        """Return the proxy through which an address is asked; None: it is asked directly."""
        if not self.by_scheme:
            return None
        parts = urlsplit(url)
        proxy = self.by_scheme.get(parts.scheme)
        host = (parts.hostname or "").rstrip(".")
        if proxy is None or any(
            _means(entry, host, parts.port or _PORTS.get(parts.scheme, 0)) for entry in self.direct
        ):
            return None
        return proxy


NO_PROXIES = Proxies()


def from_environment(environ: Mapping[str, str]) -> Proxies:
    """Return what HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY say; small letters count, and before the others.

    What is no http or https address is left out: a proxy of another kind cannot be used.
    """

    def told(name: str) -> str:
        return (environ.get(name.lower()) or environ.get(name.upper()) or "").strip()

    found = {}
    for scheme in _PORTS:
        proxy = told(f"{scheme}_proxy") or told("all_proxy")
        if proxy and "://" not in proxy:
            proxy = f"http://{proxy}"
        try:
            if urlsplit(proxy).scheme in _PORTS and urlsplit(proxy).hostname:
                found[scheme] = proxy
        except ValueError:
            continue
    direct = tuple(entry.strip().lower() for entry in told("no_proxy").split(",") if entry.strip())
    return Proxies(found, direct)


def _means(entry: str, host: str, port: int) -> bool:
    """Tell whether an entry of NO_PROXY means a host: `*`, a name with all below it, an address or a network."""
    if entry == "*":
        return True
    name, colon, only = entry.rpartition(":")
    if colon and only.isdecimal() and (":" not in name or name.endswith("]")):
        if int(only) != port:
            return False
        entry = name
    entry = entry.strip("[]").removeprefix("*").lstrip(".").rstrip(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == entry or host.endswith(f".{entry}")
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
