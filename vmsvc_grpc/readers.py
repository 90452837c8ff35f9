"""Reads the texts of settings: numbers, names, addresses and lists. Each raises ConfigError."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from vmsvc_grpc.config import LOG_LEVELS, ConfigError, ListenAddress
from vmsvc_grpc.model.key_pattern import key_matching
from vmsvc_grpc.model.objects import IPFamily
from vmsvc_grpc.model.problem import quoted
from vmsvc_grpc.model.validate import (
    LABEL_MAX,
    SUBDOMAIN_MAX,
    is_dns_1123_label,
    is_dns_1123_subdomain,
)

_TLS = "tls://"


def _listed(what: str, text: str) -> list[str]:
    """What a list names, at least one; `what` is the word for one. Raises ConfigError."""
    if not text.strip():
        raise ConfigError(f"{quoted(text)} names no {what}")
    entries = [entry.strip() for entry in text.split(",")]
    for entry in entries:
        if not entry:
            raise ConfigError(f"{quoted(text)} has an empty {what} before or after a comma")
        if len(entry.split()) > 1:
            raise ConfigError(f"{quoted(entry)} has blanks in it; put commas between them")
    return entries


_PORT = re.compile("[0-9]{1,5}")


def address(text: str) -> ListenAddress:
    """The address that `HOST:PORT` or `[IPV6]:PORT` means, or either after `tls://`.

    Raises ConfigError.
    """
    named = text.removeprefix(_TLS)
    host, colon, port = named.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not _PORT.fullmatch(port) or int(port) > 65_535:  # noqa: PLR2004 - 16 bits
        raise ConfigError(f"{quoted(text)} is not HOST:PORT; write for instance 127.0.0.1:50051")
    if host != "localhost" and not _is_ip_address(host):
        raise ConfigError(f"{quoted(host)} in {quoted(text)} is not an IP address to listen on")
    return ListenAddress(host, int(port), tls=named != text)


def addresses(text: str) -> tuple[ListenAddress, ...]:
    """The addresses that a list such as `127.0.0.1:50051,[::1]:50051` names. Raises ConfigError.

    One that is there twice is refused, unless its port is any free one.
    """
    named = tuple(map(address, _listed("address", text)))
    for each, times in Counter(each._replace(tls=False) for each in named).items():
        if each.port and times > 1:
            raise ConfigError(f"{each} is there {times} times; name each address once")
    return named


def _is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    # Python accepts any text as a zone (`fe80::1%eth0`).
    return text.isascii() and text.isprintable()


def path(text: str) -> Path:
    """The path that a text names; it need not exist. Raises ConfigError.

    An empty text is refused: it would mean the working directory.
    """
    if not text.strip():
        raise ConfigError(f"{quoted(text)} names no file or directory")
    try:
        Path(text).stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise ConfigError(f"{quoted(text)} cannot be looked at: {error.strerror}") from error
    return Path(text)


def log_level(text: str) -> str:
    """The name of a level as `logging` has it, given in either case. Raises ConfigError."""
    if text.lower() not in LOG_LEVELS:
        raise ConfigError(f"{quoted(text)} is not known; use one of {', '.join(LOG_LEVELS)}")
    return text.upper()


def ip_families(text: str) -> tuple[IPFamily, ...]:
    """The families that a list such as `IPv4,IPv6` names, in order. Raises ConfigError."""
    names = _listed("address family", text)
    known = [family.value for family in IPFamily]
    if len(set(names)) != len(names) or not set(names) <= set(known):
        raise ConfigError(f"{quoted(text)} is not a list of IPv4 and IPv6, each at most once")
    return tuple(map(IPFamily, names))


def namespace(text: str) -> str:
    """The namespace of that name. Raises ConfigError."""
    if not is_dns_1123_label(text):
        raise ConfigError(
            f"{quoted(text)} cannot be a namespace; use at most {LABEL_MAX} lower-case letters, "
            "digits and hyphens"
        )
    return text


def namespaces(text: str) -> tuple[str, ...]:
    """The namespaces that a list such as `shop,data` names, each once. Raises ConfigError."""
    return tuple(dict.fromkeys(map(namespace, _listed("namespace", text))))


def object_name(text: str) -> str:
    """The text, if it may name an object of Kubernetes. Raises ConfigError."""
    if not is_dns_1123_subdomain(text):
        raise ConfigError(
            f"{quoted(text)} cannot be the name of a Kubernetes object; use lower-case letters, "
            "digits, hyphens and dots"
        )
    return text


def names_of(what: str) -> Callable[[str], tuple[str, ...]]:
    """Reads a list of names of something, each once; `what` names one in an error."""

    def named(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(_listed(what, text)))
        for name in names:
            if not name.isprintable():
                raise ConfigError(f"{quoted(name)} has control characters")
        return names

    return named


_TRUST_DOMAIN = re.compile("[a-z0-9._-]{1,255}")


def trust_domain(text: str) -> str:
    """The text, if it may be a trust domain of SPIFFE (SPIFFE-ID, 2.1). Raises ConfigError."""
    if not _TRUST_DOMAIN.fullmatch(text):
        raise ConfigError(
            f"{quoted(text)} cannot be a trust domain; it has at most 255 lower-case letters, "
            "digits, dots, hyphens and underscores, as cluster.local"
        )
    return text


def label_patterns(text: str) -> tuple[str, ...]:
    """The patterns of labels' keys in a list like `example.com/*,team`. Raises ConfigError."""
    return _key_patterns(text, prefix_case_counts=True)


def annotation_patterns(text: str) -> tuple[str, ...]:
    """The same of annotations' keys, which may have capital letters before the slash, too."""
    return _key_patterns(text, prefix_case_counts=False)


def _key_patterns(text: str, *, prefix_case_counts: bool) -> tuple[str, ...]:
    patterns = tuple(dict.fromkeys(_listed("pattern", text)))
    for pattern in patterns:
        if key_matching(pattern, prefix_case_counts=prefix_case_counts) is None:
            raise ConfigError(
                f"{quoted(pattern)} matches no key; write for instance example.com/* or "
                "*.example.com/*"
            )
    return patterns


def boolean(text: str) -> bool:
    """True or false, as a variable says it. Raises ConfigError."""
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    try:
        return known[text.strip().lower()]
    except KeyError:
        raise ConfigError(f"{quoted(text)} is neither true nor false") from None


def on_off(text: str) -> bool:
    """Whether the text is `on` and not `off`. Raises ConfigError."""
    return one_of("on", "off")(text) == "on"


def one_of(*known: str) -> Callable[[str], str]:
    """Reads one of these words."""

    def chosen(text: str) -> str:
        if text not in known:
            raise ConfigError(f"{quoted(text)} is not known; use {' or '.join(known)}")
        return text

    return chosen


def domain(text: str) -> str:
    """A DNS domain, in lower case, without a dot at its end. Raises ConfigError."""
    name = text.strip().removesuffix(".").lower()
    labels = name.split(".")
    if len(name) > SUBDOMAIN_MAX or not all(map(is_dns_1123_label, labels)):
        raise ConfigError(f"{quoted(text)} is not a DNS domain, as cluster.local is")
    return name


SECONDS_MAX = 1_000_000.0
"""The longest time that may be set, 11 days: gRPC counts milliseconds in 31 bits."""

COUNT_MAX = 1_000_000_000
"""The largest count that may be set: gRPC holds one in 31 bits."""

# No number within these bounds needs more characters.
_NUMBER_CHARACTERS_MAX = 20
_WHOLE_NUMBER = re.compile("[0-9]+")
_DECIMAL = re.compile(r"[0-9]+(\.[0-9]*)?|\.[0-9]+")


def count(least: int = 1, most: int = COUNT_MAX) -> Callable[[str], int]:
    """Reads a whole number within these bounds."""

    def counted(text: str) -> int:
        short = len(text) <= _NUMBER_CHARACTERS_MAX
        if not (short and _WHOLE_NUMBER.fullmatch(text) and least <= int(text) <= most):
            raise ConfigError(f"{quoted(text)} is not a whole number from {least} to {most}")
        return int(text)

    return counted


def seconds(least: float, most: float = SECONDS_MAX) -> Callable[[str], float]:
    """Reads a number of seconds within these bounds."""
    return decimal("number of seconds", least, most)


def decimal(what: str, least: float, most: float) -> Callable[[str], float]:
    """Reads a number within these bounds; `what` names it in the error."""

    def measured(text: str) -> float:
        short = len(text) <= _NUMBER_CHARACTERS_MAX
        if not (short and _DECIMAL.fullmatch(text) and least <= float(text) <= most):
            bounds = f"from {least:.9g} to {most:.9g}"
            raise ConfigError(f"{quoted(text)} is not a {what} {bounds}")
        return float(text)

    return measured
