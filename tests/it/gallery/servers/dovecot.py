"""Dovecot's submission service, which asks for a password and hands each mail on to a relay behind it while it answers. It is known
from mailbox hosts, where it stands in front of another mail server.

The relay behind is the one of `taking_back.py`, with CHUNKING."""

import shutil
import subprocess
import sys
from pathlib import Path

from base import Server, die_with_parent, free_port, greets, said_by

CONFIGURATION = """\
protocols = submission
listen = 127.0.0.1
log_path = {dir}/dovecot.log
ssl = no
mail_location = maildir:~/Maildir
submission_relay_host = 127.0.0.1
submission_relay_port = {behind}
passdb {{
  driver = static
  args = password=gallery
}}
userdb {{
  driver = static
  args = uid=vmail gid=vmail home=/run/vmail
}}
service submission-login {{
  inet_listener submission {{
    port = {port}
  }}
}}
"""


class Dovecot(Server):
    name = "dovecot"
    packages = "dovecot"
    users = (
        "dovecot:x:909:909::/usr/lib/dovecot:/usr/sbin/nologin",
        "dovenull:x:910:910::/nonexistent:/usr/sbin/nologin",
        "vmail:x:2000:2000::/run/vmail:/usr/sbin/nologin",
    )

    def prepare(self) -> None:
        behind = free_port()
        script = Path(__file__).parent.parent / "taking_back.py"
        subprocess.Popen(
            [sys.executable, str(script), str(behind), str(self.taken), "chunking=1", f"refuse={self.refused}"],
            stdin=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
        )
        while not greets(behind):
            pass
        Path("/run/vmail").mkdir()
        shutil.chown("/run/vmail", "vmail", "vmail")
        (self.dir / "dovecot.conf").write_text(CONFIGURATION.format(dir=self.dir, behind=behind, port=self.port))

    def command(self) -> list[str]:
        return ["/usr/sbin/dovecot", "-F", "-c", str(self.dir / "dovecot.conf")]

    def facts(self) -> dict[str, object]:
        return {"user": "gallery", "password": "gallery"}

    def version(self) -> str:
        return said_by(["/usr/sbin/dovecot", "--version"])
