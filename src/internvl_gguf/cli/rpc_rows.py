"""What `internvl doctor` says about RPC: whether the installed llama.cpp has it, and what the named servers are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from internvl_gguf.errors import InternVLError, LibraryError
from internvl_gguf.hardware.rpc.handshake import ServerReport, ask_servers
from internvl_gguf.hardware.rpc.protocol import ProtocolVersion, installed_protocol
from internvl_gguf.utils.sizes import rounded_size


def rpc_report(servers: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Return facts about RPC servers, and the problems with them, one line each."""
    facts: dict[str, Any] = {"protocol": None, "servers": []}
    problems: list[str] = []
    ours: ProtocolVersion | None = None
    try:
        ours = installed_protocol()
        facts["protocol"] = str(ours)
    except LibraryError as error:
        problems.append(str(error))
    for server in servers:
        try:
            facts["servers"] += [_plain(report) for report in ask_servers([server], ours)]
        except InternVLError as error:
            problems.append(str(error))
    return facts, problems


def rpc_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the rows of the report: the version here, and each server."""
    installed = f"version {facts['protocol']} of the protocol" if facts["protocol"] else "not in this build"
    return [("RPC", installed), *((server["address"], _row(server)) for server in facts["servers"])]


def _plain(report: ServerReport) -> dict[str, Any]:
    return {
        "address": str(report.address),
        "protocol": str(report.protocol),
        "devices": [asdict(device) for device in report.devices],
    }


def _row(server: dict[str, Any]) -> str:
    devices = ", ".join(
        f"a {device['remote']['kind'].upper()} with {rounded_size(device['free_bytes'])} free of "
        f"{rounded_size(device['total_bytes'])}"
        for device in server["devices"]
    )
    network = server["devices"][0]["remote"]
    return (
        f"version {server['protocol']}, {devices}; {network['round_trip'] * 1e3:.2f} ms to an answer, "
        f"{network['bandwidth'] / 1e6:,.0f} MB/s"
    )
