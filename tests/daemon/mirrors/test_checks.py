"""What is refused of a mirror before anything is asked of its source."""

import pytest

from firth_protocol.errors import Invalid
from firthd.mirrors.checks import check_ca_file, check_proxy


@pytest.mark.parametrize("path", ["cert.pem", "", "/etc/\0"])
def test_a_ca_file_is_an_absolute_path(path: str) -> None:
    with pytest.raises(Invalid, match="absolute path"):
        check_ca_file(path)


@pytest.mark.parametrize(
    "proxy", ["", "proxy.example.org:3128", "socks5://proxy.example.org", "http://h:0", "http://["]
)
def test_a_proxy_is_an_address(proxy: str) -> None:
    with pytest.raises(Invalid, match="http://host:port"):
        check_proxy(proxy)
    check_proxy(None)
