"""Sendmail with Debian's configuration. It is known for being the oldest, and for its limits to a client's rate.

A client may open 10 connections in a minute and hold 10 at once, and waits 5 seconds for the greeting: the limits of Debian's
/etc/mail/access for everybody. Debian lets 127.0.0.1 off; here it counts as anybody, but may send to everybody.
`--set access=loopback` gives it Debian's settings for 127.0.0.1: no pause and no limits."""

import collections
import os
import re
import shutil
import subprocess
from pathlib import Path

from base import Server, lines_of

PROGRAMS = "/usr/libexec/sendmail"
FOR_LOOPBACK = "GreetPause:127\t0\nClientRate:127\t0\nClientConn:127\t0\n"


class Sendmail(Server):
    name = "sendmail"
    packages = "sendmail"
    users = (
        "smmta:x:906:906::/var/lib/sendmail:/usr/sbin/nologin",
        "smmsp:x:907:907::/var/lib/sendmail:/usr/sbin/nologin",
    )

    def prepare(self) -> None:
        etc = Path("/etc/mail")
        (etc / "m4").mkdir(exist_ok=True)
        for name in ("m4/dialup.m4", "m4/provider.m4", "local-host-names", "trusted-users", "relay-domains", "aliases"):
            (etc / name).touch()
        self.folder("/var/lib/sendmail", 0o751, "smmta")
        self.folder("/run/sendmail/mta", 0o755, "smmta")
        self.folder("/var/spool/mqueue", 0o750, "smmta")
        mc = Path("/usr/share/sendmail/cf/debian/sendmail.mc").read_text()
        mc = mc.replace("Port=smtp, Addr", f"Port={self.port}, Addr")
        mc = re.sub(r"^DAEMON_OPTIONS.*submission.*\n", "", mc, flags=re.M)
        if self.refused:
            mc = mc.replace("MAILER_DEFINITIONS", "FEATURE(`blocklist_recipients')dnl\nMAILER_DEFINITIONS")
        (etc / "sendmail.mc").write_text(mc)
        with open(etc / "sendmail.cf", "w") as cf:
            subprocess.run(["m4", str(etc / "sendmail.mc")], stdout=cf, check=True)
        access = Path("/usr/share/sendmail/examples/db/access").read_text()
        if self.settings.get("access") != "loopback":
            access = re.sub(r"^(GreetPause|ClientRate|ClientConn):127\b.*\n", "", access, flags=re.M)
        if self.refused:
            access += f"To:{self.refused}\tERROR:5.1.1:550 No such user\n"
        for name, text in (("access", access), ("aliases", "")):
            subprocess.run([f"{PROGRAMS}/makemap", "hash", str(etc / name)], input=text, text=True, check=True)

    def folder(self, path: str, mode: int, owner: str) -> None:
        Path(path).mkdir(parents=True, exist_ok=True)
        os.chmod(path, mode)
        shutil.chown(path, owner, "smmsp")

    def command(self) -> list[str]:
        return [f"{PROGRAMS}/sendmail", "-bD", "-C", "/etc/mail/sendmail.cf", "-O", "DeliveryMode=queueonly"]

    @property
    def taken(self) -> Path:
        return self.dir / "syslog"

    def count(self) -> collections.Counter[str]:
        copies: collections.Counter[str] = collections.Counter()
        for line in lines_of(self.taken):
            match = re.search(r": to=(\S+), .*stat=queued", line)
            if match:
                copies.update(address.strip("<>") for address in match[1].split(","))
        return copies

    def version(self) -> str:
        said = subprocess.run(
            [f"{PROGRAMS}/sendmail", "-d0.1", "-bt"], input="", text=True, capture_output=True, check=False
        ).stdout
        return said.partition("\n")[0]
