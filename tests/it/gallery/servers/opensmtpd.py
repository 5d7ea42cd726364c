"""OpenSMTPD, the mail server of OpenBSD. It is known for a small configuration and for separate processes.

It announces no PIPELINING, and takes 100 mails in a session: then it says `452 4.5.3 Too many recipients: Too many messages sent`."""

import collections
import re
from pathlib import Path

from base import Server, lines_of, said_by

CONFIGURATION = """\
table everybody {{ "@" = "nobody" }}
listen on 127.0.0.1 port {port}
action "away" mda "cat >/dev/null" virtual <everybody>
{refusal}match from any for any action "away"
"""


class OpenSmtpd(Server):
    name = "opensmtpd"
    packages = "opensmtpd"
    users = (
        "opensmtpd:x:901:901::/var/lib/opensmtpd/empty:/usr/sbin/nologin",
        "opensmtpq:x:902:902::/var/lib/opensmtpd/empty:/usr/sbin/nologin",
    )

    def prepare(self) -> None:
        refusal = f'match from any for rcpt-to "{self.refused}" reject\n' if self.refused else ""
        (self.dir / "smtpd.conf").write_text(CONFIGURATION.format(port=self.port, refusal=refusal))

    def command(self) -> list[str]:
        return ["/usr/sbin/smtpd", "-d", "-f", str(self.dir / "smtpd.conf")]

    @property
    def taken(self) -> Path:
        return self.log

    def count(self) -> collections.Counter[str]:
        found = (re.search(r" smtp envelope .* to=<([^>]*)>", line) for line in lines_of(self.log))
        return collections.Counter(match[1] for match in found if match)

    def version(self) -> str:
        return said_by(["/usr/sbin/smtpd", "-h"])
