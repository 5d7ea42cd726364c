"""aiosmtpd, the SMTP server of the Python world. It is known from tests, and from the programs that receive mail themselves."""

import importlib.metadata
from pathlib import Path

from base import Server


class Aiosmtpd(Server):
    name = "aiosmtpd"
    needs_root = False

    def command(self) -> list[str]:
        return ["/usr/bin/python3", str(Path(__file__).parent.parent / "aiosmtpd_taker.py"), str(self.port), str(self.taken), self.refused]

    def version(self) -> str:
        return importlib.metadata.version("aiosmtpd")
