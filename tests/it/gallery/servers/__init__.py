"""The servers of the gallery, by name."""

from base import Server

from .aiosmtpd import Aiosmtpd
from .courier import Courier
from .dovecot import Dovecot
from .exim import Exim
from .haraka import Haraka
from .opensmtpd import OpenSmtpd
from .postfix import Postfix, Postscreen, PostscreenDeep, ProxyFilter
from .qpsmtpd import Qpsmtpd
from .sendmail import Sendmail
from .smtp_server import SmtpServer
from .smtp_sink import SmtpSink
from .taking_back import TakingBack

ALL = (
    TakingBack,
    Haraka,
    SmtpServer,
    OpenSmtpd,
    Exim,
    Aiosmtpd,
    SmtpSink,
    Postfix,
    Postscreen,
    PostscreenDeep,
    ProxyFilter,
    Sendmail,
    Courier,
    Qpsmtpd,
    Dovecot,
)
SERVERS: dict[str, type[Server]] = {kind.name: kind for kind in ALL}
