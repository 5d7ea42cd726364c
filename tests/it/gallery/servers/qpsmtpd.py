"""qpsmtpd, a mail server in Perl. It is known for plugins, and for standing in front of perl.org's lists and apache.org's mail.

It takes 5 connections of one address and 15 in all, each in a process of its own, and listens a second before it greets."""

import re
import shutil
from pathlib import Path

from base import Server, said_by

PLUGIN = """\
# Takes mail for everybody, writes down whom for, and delivers nothing.
sub hook_rcpt {{
    my ($self, $transaction, $recipient) = @_;
    return $recipient->address eq '{refused}' ? (DENY, 'No such user') : DECLINED;
}}

sub hook_queue {{
    my ($self, $transaction) = @_;
    open(my $taken, '>>', '{taken}') or return DECLINED;
    syswrite($taken, join('', map {{ $_->address . "\\n" }} $transaction->recipients));
    close($taken);
    return (OK, 'Queued');
}}
"""


class Qpsmtpd(Server):
    name = "qpsmtpd"
    packages = "qpsmtpd"
    users = ("qpsmtpd:x:908:908::/var/spool/qpsmtpd:/usr/sbin/nologin",)

    def prepare(self) -> None:
        etc = Path("/etc/qpsmtpd")
        plugins = self.dir / "plugins"
        plugins.mkdir(exist_ok=True)
        (plugins / "taker").write_text(PLUGIN.format(taken=self.taken, refused=self.refused))
        # Debian names them as they were called before 0.94. Its README says to rename them: check_loop refuses all mail else.
        names = re.sub(r"^check_(earlytalker|relay|badmailfrom|badrcptto|loop)", r"\1", (etc / "plugins").read_text(), flags=re.M)
        (etc / "plugins").write_text("taker\n" + names)
        with open(etc / "plugin_dirs", "a") as folders:
            folders.write(f"{plugins}\n")
        # The package writes the way to deliver into it when it is installed.
        (etc / "debian-queue-method").touch()
        (etc / "me").write_text("relay.example\n")
        # Our client may send to everybody.
        (etc / "relayclients").write_text("127.\n")
        self.taken.touch()
        for path in ("/var/spool/qpsmtpd", "/run/qpsmtpd", "/var/log/qpsmtpd"):
            Path(path).mkdir(parents=True, exist_ok=True)
            Path(path).chmod(0o700)
        for path in (self.taken, "/var/spool/qpsmtpd", "/run/qpsmtpd", "/var/log/qpsmtpd"):
            shutil.chown(path, "qpsmtpd", "qpsmtpd")

    def command(self) -> list[str]:
        return ["/usr/bin/qpsmtpd-forkserver", "--port", str(self.port), "--listen-address", "127.0.0.1", "--user", "qpsmtpd"]

    def environment(self) -> dict[str, str]:
        return {"QPSMTPD_CONFIG": "/etc/qpsmtpd"}

    def version(self) -> str:
        return said_by(["perl", "-MQpsmtpd", "-e", "print Qpsmtpd->version, qq(\\n)"])
