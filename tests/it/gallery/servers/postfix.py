"""Postfix, the mail server of most Linux machines. It is known for many small processes, and for keeping to the standards.

`--set` takes each parameter of main.cf. There are four: as it comes; with postscreen in front, whose tests of clients are off or on; and with a filter in front of the queue."""

import collections
import re
import subprocess
from pathlib import Path

from base import Server, free_port, lines_of, said_by

from .smtp_sink import postfix_version

# Our client is a stranger to it, so that the limits for strangers apply, and may send to everybody. What it takes is thrown away.
MAIN = """\
compatibility_level = 3.6
queue_directory = {dir}/queue
data_directory = {dir}/data
maillog_file = {dir}/log
maillog_file_prefixes = {dir}
myhostname = relay.example
mydestination =
mynetworks = 192.0.2.0/24
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
relay_domains = static:all
relay_transport = discard
transport_maps =
local_recipient_maps =
alias_maps =
alias_database =
"""

SERVICES = """\
pickup    unix  n - n 60    1 pickup
cleanup   unix  n - n -     0 cleanup
qmgr      unix  n - n 300   1 qmgr
tlsmgr    unix  - - n 1000? 1 tlsmgr
rewrite   unix  - - n -     - trivial-rewrite
bounce    unix  - - n -     0 bounce
defer     unix  - - n -     0 bounce
trace     unix  - - n -     0 bounce
verify    unix  - - n -     1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n -     - proxymap
proxywrite unix - - n -     1 proxymap
smtp      unix  - - n -     - smtp
relay     unix  - - n -     - smtp
showq     unix  n - n -     - showq
error     unix  - - n -     - error
retry     unix  - - n -     - error
discard   unix  - - n -     - discard
anvil     unix  - - n -     1 anvil
scache    unix  - - n -     1 scache
postlog   unix-dgram n - n - 1 postlogd
dnsblog   unix  - - n -     0 dnsblog
tlsproxy  unix  - - n -     0 tlsproxy
"""


class Postfix(Server):
    name = "postfix"
    main = ""

    def services(self) -> str:
        return f"127.0.0.1:{self.port} inet n - n - - smtpd\n"

    def prepare(self) -> None:
        for name in ("conf", "queue", "data"):
            (self.dir / name).mkdir(exist_ok=True)
        main = MAIN.format(dir=self.dir) + self.main + "".join(f"{key} = {value}\n" for key, value in self.settings.items())
        if self.refused:
            main += f"smtpd_recipient_restrictions = check_recipient_access inline:{{{{{self.refused} = REJECT}}}}\n"
        (self.dir / "conf/main.cf").write_text(main)
        (self.dir / "conf/master.cf").write_text(self.services() + SERVICES)
        subprocess.run(["chown", "postfix", str(self.dir / "data")], check=True)

    def command(self) -> list[str]:
        return ["/usr/sbin/postfix", "-c", str(self.dir / "conf"), "start-fg"]

    @property
    def taken(self) -> Path:
        return self.log

    def count(self) -> collections.Counter[str]:
        found = (re.search(r" postfix/discard\[.*: to=<([^>]*)>.* status=sent", line) for line in lines_of(self.log))
        return collections.Counter(match[1] for match in found if match)

    def version(self) -> str:
        return postfix_version()


class Postscreen(Postfix):
    name = "postfix-postscreen"

    def services(self) -> str:
        return f"127.0.0.1:{self.port} inet n - n - 1 postscreen\nsmtpd pass - - n - - smtpd\n"


class PostscreenDeep(Postscreen):
    """With the tests that come after the greeting, each of which ends with `450 4.3.2 Service currently unavailable` at RCPT the first
    time: the client has to come again."""

    name = "postfix-postscreen-deep"
    main = "postscreen_pipelining_enable = yes\npostscreen_non_smtp_command_enable = yes\npostscreen_bare_newline_enable = yes\n"


class ProxyFilter(Postfix):
    """The smtpd in front hands each mail to a filter before it answers, here a second smtpd, whose reply it passes on."""

    name = "postfix-proxy-filter"

    def services(self) -> str:
        behind = free_port()
        return (
            f"127.0.0.1:{self.port} inet n - n - 20 smtpd\n  -o smtpd_proxy_filter=127.0.0.1:{behind}\n"
            f"  -o smtpd_client_connection_count_limit=10\n"
            f"127.0.0.1:{behind} inet n - n - - smtpd\n  -o smtpd_authorized_xforward_hosts=127.0.0.0/8\n"
            f"  -o smtpd_client_restrictions=\n  -o smtpd_helo_restrictions=\n  -o smtpd_sender_restrictions=\n"
            f"  -o smtpd_relay_restrictions=\n  -o smtpd_recipient_restrictions=permit_mynetworks,reject\n"
            f"  -o smtpd_data_restrictions=\n  -o mynetworks=127.0.0.0/8\n  -o receive_override_options=no_unknown_recipient_checks\n"
        )
