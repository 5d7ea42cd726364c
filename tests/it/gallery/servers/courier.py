"""Courier, a mail server that was written as one whole with its IMAP server. It is known from small hosting firms.

It takes 5 connections of one address and 40 in all, each in a process of its own."""

import collections
import os
import re
import shutil
import subprocess
from pathlib import Path

from base import Server, said_by

# As /usr/sbin/esmtpd does, but in the foreground.
START = """\
prefix=/usr exec_prefix=/usr sysconfdir=/etc/courier sbindir=/usr/sbin
set -a
. /etc/courier/esmtpd
ulimit -d $ULIMIT
exec /usr/sbin/couriertcpd -noidentlookup -user=$MAILUSER -group=$MAILGROUP -address=127.0.0.1 -access=$ACCESSFILE.dat \\
    -maxprocs=$MAXDAEMONS -maxperc=$MAXPERC -maxperip=$MAXPERIP {port} /usr/sbin/courieresmtpd
"""


class Courier(Server):
    """Only what takes mail in runs: its queue is not looked at, and grows."""

    name = "courier"
    packages = "courier"
    users = ("courier:x:911:911::/var/lib/courier:/usr/sbin/nologin",)

    @property
    def taken(self) -> Path:
        return self.dir / "queue"

    def prepare(self) -> None:
        etc = Path("/etc/courier")
        queue = Path("/var/lib/courier")
        shutil.copytree(queue, self.taken, dirs_exist_ok=True)
        for path in (self.taken, *self.taken.rglob("*")):
            shutil.chown(path, "courier", "courier")
        subprocess.run(["mount", "--bind", str(self.taken), str(queue)], check=True)
        for name, text in (("defaultdomain", "relay.example"), ("me", "relay.example"), ("locals", "localhost"), ("dsnfrom", "")):
            (etc / name).write_text(text + "\n")
        # Our client may send to everybody.
        access = "127.0.0.1\tallow,RELAYCLIENT\n"
        self.make_data("smtpaccess", access)
        self.make_data("aliases", "")
        for path in (etc, *etc.rglob("*")):
            os.chown(path, 0, 911)
        Path("/run/courier").mkdir(exist_ok=True)
        (self.dir / "start").write_text(START.format(port=self.port))

    def make_data(self, name: str, text: str) -> None:
        program = "/usr/lib/courier/courier/makedatprog"
        words = [program, "-", f"/etc/courier/{name}.tmp", f"/etc/courier/{name}.dat"]
        subprocess.run(words, input=text + ".\n", text=True, check=True)

    def command(self) -> list[str]:
        return ["/usr/bin/env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "/bin/sh", str(self.dir / "start")]

    def count(self) -> collections.Counter[str]:
        """Its queue has a control file for each mail, with a line for each recipient."""
        copies: collections.Counter[str] = collections.Counter()
        for path in self.taken.rglob("C*"):
            if path.is_file():
                found = re.findall(r"^r(.*)$", path.read_text(errors="replace"), flags=re.M)
                copies.update(address.removeprefix("rfc822;").strip() for address in found)
        return copies

    def version(self) -> str:
        return said_by(["/usr/sbin/courier", "--version"])
