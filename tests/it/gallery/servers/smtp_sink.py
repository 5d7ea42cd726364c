"""smtp-sink, the test server that comes with Postfix. It is known for its speed: it throws everything away."""

import collections
import os

from base import Server, lines_of, said_by


class SmtpSink(Server):
    """Each `--set KEY=` is an option of its: `--set p=` leaves PIPELINING out."""

    name = "smtp-sink"
    needs_root = False

    def prepare(self) -> None:
        if os.geteuid() == 0:
            # It refuses to be root, and whom it becomes must be able to write here.
            self.dir.chmod(0o777)

    def command(self) -> list[str]:
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        options = [f"-{key}{value}" for key, value in self.settings.items()]
        return ["/usr/sbin/smtp-sink", *user, *options, "-D", "taken", f"127.0.0.1:{self.port}", "64"]

    def count(self) -> collections.Counter[str]:
        mark = "X-Rcpt-Args: <"
        return collections.Counter(line[len(mark) :].split(">")[0] for line in lines_of(self.taken) if line.startswith(mark))

    def version(self) -> str:
        return postfix_version()


def postfix_version() -> str:
    return said_by(["/usr/sbin/postconf", "-dh", "mail_version"])
