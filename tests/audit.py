"""Are there known vulnerabilities in the pinned packages?  `python -m tests.audit [constraints.txt]`

Asks the database of osv.dev, which holds what PyPI and GitHub publish, for every pinned version.  Exit code 1 if it
knows a vulnerability that stands in nobody's list of accepted ones; 0 if it knows none, or cannot be reached, which is
said in a sentence: a network that is down says nothing about the packages.
"""

import json
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

SERVICE = "https://api.osv.dev/v1"
PINNED = Path(__file__).parents[1] / "constraints.txt"
ACCEPTED: dict[str, str] = {}
"""Identifier -> why it does not concern this project."""


class Unreachable(Exception):
    """The service gave no answer that can be read."""


def pins(text: str) -> dict[str, str]:
    """Versions by package, from lines `name==version`."""
    found = (re.match(r"\s*([A-Za-z0-9._-]+)==([^\s;#]+)", line) for line in text.splitlines())
    return {match[1]: match[2].split("+")[0] for match in found if match}


def known(packages: dict[str, str], service: str = SERVICE) -> list[tuple[str, str, str, str]]:
    """(package, version, identifier, summary) of every vulnerability not withdrawn; Unreachable if unanswered."""
    queries = [{"package": {"name": n, "ecosystem": "PyPI"}, "version": v} for n, v in packages.items()]
    answer = _ask(f"{service}/querybatch", {"queries": queries})
    rows = []
    try:
        for (name, version), result in zip(packages.items(), answer["results"], strict=True):
            for identifier in sorted({one["id"] for one in result.get("vulns", [])}):
                about = _ask(f"{service}/vulns/{identifier}")
                if "withdrawn" not in about:
                    rows.append((name, version, identifier, str(about.get("summary", ""))))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Unreachable(f"its answer is not understood ({type(error).__name__})") from error
    return rows


def _ask(address: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    try:
        asked = urllib.request.Request(address, data=data, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=20) as reply:
            return json.loads(reply.read(50_000_000))
    except (OSError, ValueError) as error:
        raise Unreachable(getattr(error, "reason", None) or str(error) or type(error).__name__) from error


def main(arguments: list[str], service: str = SERVICE) -> int:
    """Print what is known and return the exit code."""
    path = Path(arguments[0]) if arguments else PINNED
    packages = pins(path.read_text(encoding="utf-8"))
    try:
        rows = [row for row in known(packages, service) if row[2] not in ACCEPTED]
    except Unreachable as error:
        print(f"the {len(packages)} packages of {path.name} were not audited: {service} cannot be reached ({error})")
        return 0
    for name, version, identifier, summary in rows:
        print(f"{name} {version}: {identifier} {summary}")
    print(f"{len(packages)} packages of {path.name} audited: {len(rows)} known vulnerabilities")
    return 1 if rows else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
