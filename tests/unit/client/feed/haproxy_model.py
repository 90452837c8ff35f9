"""HAProxy as far as its Runtime API changes servers: commands in, its answers and rules."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field

STATE_COLUMNS = (
    "be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight "
    "srv_time_since_last_change srv_check_status srv_check_result srv_check_health "
    "srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port"
)

ADMIN = {"ready": 0, "maint": 1, "drain": 8}


@dataclass
class ModelServer:
    address: str
    port: int
    admin: int = 1
    weight: int = 100
    backup: bool = False
    check: int = 0
    agent: int = 0
    sessions: int = 0
    since_s: int = 0
    dynamic: bool = True


@dataclass
class ModelBackend:
    """One backend, `web`. A rule of HAProxy that is broken raises AssertionError."""

    servers: dict[str, ModelServer] = field(default_factory=dict)
    added: list[str] = field(default_factory=list)

    def stat(self) -> str:
        rows = [
            f"web,{name},0,{server.sessions},{int(server.backup)},2,"
            for name, server in self.servers.items()
        ]
        return "\n".join(["# pxname,svname,qcur,scur,bck,type,", *rows])

    def state(self) -> str:
        rows = [
            f"3 web {number} {name} {server.address} 2 {server.admin} {server.weight} 100 "
            f"{server.since_s} 1 0 2 {server.check} {server.agent} 0 0 - {server.port}"
            for number, (name, server) in enumerate(self.servers.items(), 1)
        ]
        return "\n".join(["1", f"# {STATE_COLUMNS}", *rows])

    def do(self, line: str) -> str:
        """HAProxy's answer to a command."""
        words = line.split()
        verb = words[0]
        place = next(i for i, word in enumerate(words) if word.startswith("web/"))
        name, rest = words[place].removeprefix("web/"), words[place + 1 :]
        if verb == "add":
            return self._add(name, rest)
        server = self.servers.get(name)
        if server is None:
            return "No such server."
        match verb, *words[1:place]:
            case "del", "server":
                return self._delete(name, server)
            case "set", "server":
                return self._set(server, rest)
            case "enable", "health":
                assert server.check & 2
                server.check |= 4
            case "enable", "agent":
                assert server.agent & 2
                server.agent |= 4
            case "disable", "agent":
                server.agent &= ~4
            case "shutdown", "sessions", "server":
                server.sessions = 0
            case _:
                raise AssertionError(line)
        return ""

    def _add(self, name: str, rest: list[str]) -> str:
        assert name not in self.servers, f"add of {name}, which exists"
        address, _, port = rest[0].rpartition(":")
        options = rest[1:]
        self.added.append(name)
        self.servers[name] = ModelServer(
            str(ipaddress.ip_address(address.removeprefix("[").removesuffix("]"))),
            int(port),
            backup="backup" in options,
            check=2 * ("check" in options),
            agent=2 * ("agent-check" in options),
        )
        return "New server registered."

    def _delete(self, name: str, server: ModelServer) -> str:
        assert server.admin & 1, f"del of {name}, which is not in maintenance"
        if server.sessions:
            return "Server still has connections attached to it, cannot remove it."
        del self.servers[name]
        return "Server deleted."

    def _set(self, server: ModelServer, rest: list[str]) -> str:
        match rest:
            case "state", state:
                admin = (server.admin & ~9) | ADMIN[state]
                if (server.admin ^ admin) & 1:
                    server.since_s = 0
                server.admin = admin
            case "weight", "100%":
                server.weight = 100
            case "addr", address, "port", port:
                before, server.address, server.port = server.address, address, int(port)
                return f"IP changed from '{before}' to '{address}' by 'stats socket command'"
            case _:
                raise AssertionError(rest)
        return ""
