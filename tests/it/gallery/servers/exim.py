"""Exim, the mail server of many hosting firms and, for long, of Debian. It is known for a configuration that is a program.

It announces PIPELINING, CHUNKING and PIPECONNECT."""

import collections
import re
import shutil
from pathlib import Path

from base import Server, lines_of, said_by

# Queueing only: its delivery would not cost nothing. Everything else is Exim's own default, and not Debian's.
CONFIGURATION = """\
primary_hostname = relay.example
spool_directory = /var/spool/exim4
log_file_path = {log}/exim-%slog
log_selector = +received_recipients
queue_only
acl_smtp_rcpt = check_rcpt
never_users = root
begin acl
check_rcpt:
{refusal}  accept
begin routers
nobody:
  driver = redirect
  data = :blackhole:
"""


class Exim(Server):
    name = "exim"
    packages = "exim"
    users = ("Debian-exim:x:903:903::/var/spool/exim4:/usr/sbin/nologin",)

    def prepare(self) -> None:
        logs = self.dir / "logs"
        logs.mkdir(exist_ok=True)
        configuration = self.dir / "exim.conf"
        refusal = f"  deny recipients = {self.refused}\n" if self.refused else ""
        configuration.write_text(CONFIGURATION.format(log=logs, refusal=refusal))
        configuration.chmod(0o644)
        spool = Path("/var/spool/exim4")
        spool.mkdir(exist_ok=True)
        for path in (logs, spool):
            shutil.chown(path, "Debian-exim", "Debian-exim")

    def command(self) -> list[str]:
        return ["/usr/sbin/exim4", "-C", str(self.dir / "exim.conf"), "-bdf", "-oX", f"127.0.0.1.{self.port}", "-oP", "/run/exim.pid"]

    @property
    def taken(self) -> Path:
        return self.dir / "logs/exim-mainlog"

    def count(self) -> collections.Counter[str]:
        copies: collections.Counter[str] = collections.Counter()
        for line in lines_of(self.taken):
            if " <= " in line and (match := re.search(r" for (\S+@\S+(?: \S+@\S+)*)$", line)):
                copies.update(match[1].split(" "))
        return copies

    def version(self) -> str:
        return said_by(["/usr/sbin/exim4", "-bV"])
