"""One context of a kubeconfig: cluster and user. Pure: texts in, values out.

Read as kubectl reads it (`client-go/tools/clientcmd`): of several files the first with a value
counts, and paths are relative to the file that names them. Stricter in one point: credentials that
we cannot use are an error, so that we never ask as somebody else, or anonymously.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

import msgspec
import yaml

from vmsvc_grpc.kube.kubeconfig_yaml import TooDeepError, first_document
from vmsvc_grpc.model.decoding import ShapeError, converted
from vmsvc_grpc.model.problem import likely_meant, quoted
from vmsvc_grpc.model.validate import is_dns_1123_label

_ByName = TypeVar("_ByName", "NamedCluster", "NamedContext", "NamedUser")

OPENID_PROVIDER = "oidc"
"""The only `auth-provider` that Kubernetes still has."""

# How many names of a kubeconfig an error shows.
_NAMES_SHOWN_MAX = 5

_TOO_DEEP = "it is nested too deep; remove what is no field of a kubeconfig"

_EXEC_API = "client.authentication.k8s.io/"
_EXEC_VERSIONS = (f"{_EXEC_API}v1", f"{_EXEC_API}v1beta1")


class KubeconfigError(ValueError):
    """A kubeconfig does not say what is needed; the message is one line without the file's name."""


class _Kebab(msgspec.Struct, rename="kebab", frozen=True):
    """Fields as a kubeconfig names most of them. Unknown ones are ignored, as kubectl does."""


class Cluster(_Kebab, frozen=True):
    """Where the API server is, and how its identity is verified."""

    server: str = ""
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    insecure_skip_tls_verify: bool | None = None
    tls_server_name: str | None = None
    proxy_url: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it is asked without TLS, so that a client certificate cannot be used."""
        return urlsplit(self.server).scheme == "http"


class EnvironmentEntry(msgspec.Struct, frozen=True):
    """An environment variable for a plugin."""

    name: str
    value: str = ""


class Plugin(msgspec.Struct, rename="camel", frozen=True):
    """A program that prints credentials (KEP-541)."""

    command: str = ""
    api_version: str = ""
    args: list[str] | None = None
    env: list[EnvironmentEntry] | None = None
    install_hint: str | None = None
    interactive_mode: str | None = None
    provide_cluster_info: bool | None = None


class AuthProvider(msgspec.Struct, frozen=True):
    """A way to get credentials that is built into clients."""

    name: str = ""
    config: dict[str, str] | None = None


class User(_Kebab, frozen=True):
    """Who asks."""

    token: str | None = None
    token_file: str | None = msgspec.field(name="tokenFile", default=None)
    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    username: str | None = None
    password: str | None = None
    exec: Plugin | None = None
    auth_provider: AuthProvider | None = None
    impersonate: str | None = msgspec.field(name="as", default=None)
    impersonate_uid: str | None = msgspec.field(name="as-uid", default=None)
    impersonate_groups: list[str] | None = msgspec.field(name="as-groups", default=None)
    impersonate_extra: dict[str, Any] | None = msgspec.field(name="as-user-extra", default=None)

    @property
    def names_token(self) -> bool:
        """Whether it has a token or a password, which takes precedence over a plugin."""
        return bool(self.token or self.token_file or self.username)

    @property
    def names_credentials(self) -> bool:
        """Whether it has anything by which an API server could know who asks."""
        given = self.exec is not None or self.auth_provider is not None
        return given or self.names_token or self.names_certificate

    @property
    def names_certificate(self) -> bool:
        """Whether it has a client certificate."""
        return bool(self.client_certificate or self.client_certificate_data)


class Context(msgspec.Struct, frozen=True):
    """A cluster, a user, and the default namespace."""

    cluster: str = ""
    user: str | None = None
    namespace: str | None = None


class NamedCluster(msgspec.Struct, frozen=True):
    """A cluster by its name."""

    name: str
    cluster: Cluster | None = None


class NamedContext(msgspec.Struct, frozen=True):
    """A context by its name."""

    name: str
    context: Context | None = None


class NamedUser(msgspec.Struct, frozen=True):
    """A user by its name."""

    name: str
    user: User | None = None


class _KubeconfigFile(_Kebab, frozen=True):
    current_context: str | None = None
    clusters: list[NamedCluster] | None = None
    contexts: list[NamedContext] | None = None
    users: list[NamedUser] | None = None


class Chosen(NamedTuple):
    """One context with what it refers to, and the folders that their paths are relative to.

    `user_name` is empty if the context names no user.
    """

    name: str
    cluster: Cluster
    cluster_folder: Path
    user_name: str
    user: User
    user_folder: Path
    namespace: str


def chosen(files: Sequence[tuple[Path, str]], context: str | None) -> Chosen:
    """The context of that name in these files; without a name the current one.

    `files` are paths with their texts. Raises KubeconfigError.
    """
    parsed = [_parsed(path, text) for path, text in files]
    current = (one.file.current_context for one in parsed if one.file.current_context)
    name = context or next(current, "")
    if not name:
        raise KubeconfigError("it has no current-context; name one with --context")
    in_context, named = _find(parsed, lambda file: file.contexts, name, "context")
    meant = named.context or Context()
    if not meant.cluster:
        raise KubeconfigError(f"context {quoted(name)} names no cluster")
    in_cluster, cluster = _find(parsed, lambda file: file.clusters, meant.cluster, "cluster")
    user_folder, user = Path(), User()
    if meant.user:
        in_user, found = _find(parsed, lambda file: file.users, meant.user, "user")
        user_folder, user = in_user.folder, _checked_user(meant.user, found.user or User())
        if not user.names_credentials:
            _refuse_strays(f"user {quoted(meant.user)}", in_user.entry("users", meant.user), "user")
    else:
        _refuse_strays(f"context {quoted(name)}", in_context.entry("contexts", name), "context")
        _refuse_users(name, parsed)
    if meant.namespace and not is_dns_1123_label(meant.namespace):
        raise KubeconfigError(
            f"context {quoted(name)}: namespace is no name of one: {quoted(meant.namespace)}"
        )
    checked = _checked_cluster(meant.cluster, cluster.cluster or Cluster())
    if checked.is_plain and user.names_certificate:
        field = "client-certificate" + ("-data" if user.client_certificate_data else "")
        raise KubeconfigError(
            f"user {quoted(meant.user or '')}: {field}: a client certificate needs https; server "
            f"of cluster {quoted(meant.cluster)} is an http URL"
        )
    return Chosen(
        name,
        checked,
        in_cluster.folder,
        meant.user or "",
        user,
        user_folder,
        meant.namespace or "default",
    )


class _Parsed(NamedTuple):
    """A file: what we read of it, and all that it says."""

    folder: Path
    file: _KubeconfigFile
    untyped: Any

    def entry(self, entries: str, name: str) -> dict[Any, Any]:
        """All that stands in the entry of that name, which is there."""
        found: dict[Any, Any] = next(one for one in self.untyped[entries] if one["name"] == name)
        return found


_FIELDS = {"user": User.__struct_encode_fields__, "context": Context.__struct_encode_fields__}

# Fields that do not say who asks.
_OTHERS = frozenset(
    {"extensions", "as", "as-uid", "as-groups", "as-user-extra", "cluster", "namespace"}
)


def _refuse_strays(who: str, entry: dict[Any, Any], kind: str) -> None:
    """Raise KubeconfigError if an entry seems to say who asks, and does not.

    kubectl passes over a misspelt field, and then asks the terminal for a name and a password.
    """
    known = _FIELDS[kind]
    for field in map(str, (field for field in entry if field not in ("name", kind))):
        if field in known:
            raise KubeconfigError(f"{who}: {field} stands beside {kind}; move it into that")
        raise KubeconfigError(f"{who}: {_unknown(field, (kind,))}")
    for field in map(str, (field for field in entry.get(kind) or () if field not in _OTHERS)):
        if field in known:
            raise KubeconfigError(f"{who}: {field} is empty; fill it in, or leave it out")
        raise KubeconfigError(f"{who}: {_unknown(field, known)}")


def _refuse_users(context: str, files: Iterable[_Parsed]) -> None:
    """Raise KubeconfigError if there are users, and the context names none of them.

    kubectl then asks the terminal for a name and a password.
    """
    users = [named.name for one in files for named in one.file.users or ()]
    if users:
        raise KubeconfigError(
            f"context {quoted(context)} names no user, and there is user {quoted(users[0])}; add "
            "user to the context; to ask as nobody, name a user without fields"
        )


def _unknown(field: str, known: tuple[str, ...]) -> str:
    meant = likely_meant(field, known)
    hint = f"; did you mean {meant}?" if meant is not None else ""
    return f"{quoted(field)} is not a field there{hint}"


def _parsed(path: Path, text: str) -> _Parsed:
    try:
        data = first_document(text)
    except TooDeepError as error:
        raise KubeconfigError(_TOO_DEEP) from error
    except (yaml.YAMLError, ValueError) as error:
        # A YAML error has several lines, one of which quotes the file, and that may be a secret.
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise KubeconfigError(f"it is no YAML{where}") from error
    untyped = {} if data is None else data
    try:
        return _Parsed(path.parent, converted(untyped, _KubeconfigFile), untyped)
    except ShapeError as error:
        raise KubeconfigError(f"it is not a kubeconfig: {error}") from error
    except RecursionError as error:
        raise KubeconfigError(_TOO_DEEP) from error


def _find(
    files: Sequence[_Parsed],
    entries: Callable[[_KubeconfigFile], list[_ByName] | None],
    name: str,
    kind: str,
) -> tuple[_Parsed, _ByName]:
    """The first entry of that name, and its file."""
    for parsed in files:
        found = [entry for entry in entries(parsed.file) or () if entry.name == name]
        if len(found) > 1:
            raise KubeconfigError(f"it has {len(found)} entries for {kind} {quoted(name)}")
        if found:
            return parsed, found[0]
    known = [entry.name for parsed in files for entry in entries(parsed.file) or ()]
    raise KubeconfigError(f"it has no {kind} {quoted(name)}{_some(known)}")


def _some(names: Sequence[str]) -> str:
    """What there is instead, for an error: the first of some names."""
    if not names:
        return ""
    more = f" and {len(names) - _NAMES_SHOWN_MAX} more" if len(names) > _NAMES_SHOWN_MAX else ""
    return f"; it has {', '.join(map(quoted, names[:_NAMES_SHOWN_MAX]))}{more}"


def _checked_cluster(name: str, cluster: Cluster) -> Cluster:
    for field, url in (("server", cluster.server), ("proxy-url", cluster.proxy_url)):
        if url is None or (field == "proxy-url" and not url):
            continue
        flaw = _url_flaw(url, with_user=field == "proxy-url")
        if flaw is not None:
            shown = quoted(_USER_IN_URL.sub("//...@", url))
            raise KubeconfigError(f"cluster {quoted(name)}: {field} {flaw}: {shown}")
    if cluster.tls_server_name and not _is_host(cluster.tls_server_name):
        raise KubeconfigError(
            f"cluster {quoted(name)}: tls-server-name is no name of a host: "
            f"{quoted(cluster.tls_server_name)}"
        )
    return cluster


# Somebody's password may be in it.
_USER_IN_URL = re.compile("//[^/]*@")


def _url_flaw(url: str, *, with_user: bool) -> str | None:
    """Why a URL cannot be asked; None if it can. `with_user`: it may name a user."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return _NO_URL
    if parts.scheme not in ("http", "https") or port == 0 or not _is_host(host):
        return _NO_URL
    if parts.username is not None and not with_user:
        return "names a user, which belongs under users"
    if not _fits_header(unquote(f"{parts.username}{parts.password}")):
        return "names a user in characters that no header may hold"
    if parts.query or parts.fragment:
        return "has more in it than host, port and path"
    return None


_NO_URL = "is not an http or https URL"

# A name, or an address, which may have a zone.
_HOST = re.compile("[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?")


def _fits_header(text: str) -> bool:
    return all(ord(character) < 256 for character in text)  # noqa: PLR2004 - Latin-1


def _is_host(text: str) -> bool:
    """Whether it may be looked up: a name, of other letters too, or an address."""
    try:
        return bool(_HOST.fullmatch(text.encode("idna").decode()))
    except UnicodeError:  # As for a label that is empty, or of more than 63 characters.
        return False


def _checked_user(name: str, user: User) -> User:
    """The user, if we can ask as exactly that one."""
    who = f"user {quoted(name)}"
    if (
        user.impersonate
        or user.impersonate_uid
        or user.impersonate_groups
        or user.impersonate_extra
    ):
        raise KubeconfigError(f"{who}: to ask as somebody else (as, as-groups) is not supported")
    if user.token and user.username:
        raise KubeconfigError(f"{who} has a token and a username; only one can be sent")
    key = user.client_key or user.client_key_data
    if user.names_certificate != bool(key):
        raise KubeconfigError(f"{who} has one of a client certificate and its key; both are needed")
    if user.password and not user.username:
        raise KubeconfigError(f"{who} has a password and no username")
    if user.exec is not None and user.auth_provider is not None:
        raise KubeconfigError(f"{who} has exec and auth-provider; only one can be asked")
    if user.exec is not None:
        _check_plugin(who, user.exec)
    if user.auth_provider is not None and user.auth_provider.name != OPENID_PROVIDER:
        raise KubeconfigError(
            f"{who}: auth-provider {quoted(user.auth_provider.name)} is not supported, "
            "nor by Kubernetes since 1.26; use its exec plugin"
        )
    return user


def _check_plugin(who: str, plugin: Plugin) -> None:
    if not plugin.command:
        raise KubeconfigError(f"{who}: exec names no command")
    if plugin.api_version not in _EXEC_VERSIONS:
        known = " or ".join(_EXEC_VERSIONS)
        raise KubeconfigError(
            f"{who}: exec.apiVersion {quoted(plugin.api_version)} is not known; use {known}"
        )
    if plugin.interactive_mode == "Always":
        raise KubeconfigError(
            f"{who}: its credential plugin wants a terminal (interactiveMode: Always), which a "
            "server has not"
        )
    if plugin.interactive_mode not in (None, "", "Never", "IfAvailable"):
        raise KubeconfigError(
            f"{who}: exec.interactiveMode {quoted(plugin.interactive_mode)} is not known"
        )
    for entry in plugin.env or ():
        if not entry.name or "=" in entry.name or "\0" in entry.name + entry.value:
            raise KubeconfigError(f"{who}: exec.env has a variable that no program can be given")
    if "\0" in "".join((plugin.command, *(plugin.args or ()))):
        raise KubeconfigError(f"{who}: exec has an argument that no program can be given")
