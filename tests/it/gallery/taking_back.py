"""A fast ESMTP server that takes back the liberty of RFC 2920, section 3.1: that a client may write on before it has the reply to
the end of the data. It waits three milliseconds after each final dot (and after each BDAT ... LAST), looks whether anything has
been written ahead, and if so does what `mode` says. relay.py starts it; its settings are in `Settings`.

    taking_back.py PORT FILE [KEY=VALUE...]      FILE gets a line with the address for each recipient of each mail it took
"""

import asyncio
import os
import socket
import struct
import sys
import time
from dataclasses import dataclass, fields

MODES = ("off", "503", "421", "close", "reset", "nothing", "forget", "hangup-taken", "hangup-lost", "reset-taken", "reset-lost")


@dataclass
class Settings:
    """Each can be given as KEY=VALUE."""

    # When something was written ahead of the reply to the end of the data:
    #   off           it is answered in order, as the RFC wants
    #   503           250, then 503 to each command written ahead; the session goes on
    #   421           250, then 421 and close
    #   close, reset  250, then close, or a TCP reset
    #   nothing       250, and never a word again
    #   forget        250; what was written ahead is dropped without a word; the session goes on
    #   hangup-taken, reset-taken    no reply, close or reset; the mail is taken
    #   hangup-lost, reset-lost      the same; the mail is not taken
    mode: str = "off"
    # Mails in a session, before it is refused at MAIL (or `rcpt`, `data`) with 452, or with 421 and a close. 0 is no end.
    session_max: int = 0
    session_at: str = "mail"
    session_how: str = "452"
    # Connections at once, before one more gets 421 and is closed, or is closed without a word. 0 is no end.
    connections_max: int = 0
    connections_how: str = "421"
    # Before the reply to the end of the data.
    delay_ms: int = 0
    # 450 to the first RCPT for each recipient, and until a second later.
    greylist: int = 0
    # 550 to each recipient that holds this text.
    refuse: str = ""
    pipelining: int = 1
    chunking: int = 0
    size: int = 10_485_760

    @classmethod
    def parse(cls, words: list[str]) -> "Settings":
        settings = cls()
        known = {field.name: field.type for field in fields(cls)}
        for word in words:
            key, _, value = word.partition("=")
            if key not in known:
                raise SystemExit(f"taking-back knows no setting {key!r}, only {', '.join(known)}")
            setattr(settings, key, int(value) if known[key] is int else value)
        if settings.mode not in MODES:
            raise SystemExit(f"taking-back knows no mode {settings.mode!r}, only {', '.join(MODES)}")
        return settings


class House:
    """What all sessions share."""

    def __init__(self, settings: Settings, taken: int) -> None:
        self.settings = settings
        self.taken = taken
        self.open = 0
        self.first_seen: dict[str, float] = {}

    def take(self, recipients: list[str]) -> None:
        os.write(self.taken, "".join(f"{recipient}\n" for recipient in recipients).encode())

    def greylists(self, recipient: str) -> bool:
        if not self.settings.greylist:
            return False
        now = time.monotonic()
        return now - self.first_seen.setdefault(recipient, now) < 1


class Session(asyncio.Protocol):
    def __init__(self, house: House) -> None:
        self.house = house
        self.settings = house.settings
        self.buffer = bytearray()
        self.replies: list[str] = []
        self.scanned = 0
        self.state = "command"  # or data, chunk, waiting, deaf
        self.sender = False
        self.recipients: list[str] = []
        self.mails = 0
        self.chunk = 0
        self.is_last_chunk = False
        self.refusal: str | None = None  # of the BDAT whose octets are coming; "" has been said already

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.house.open += 1
        if 0 < self.settings.connections_max < self.house.open:
            if self.settings.connections_how != "close":
                self.reply("421 4.7.0 too many connections from your address")
            self.close()
            return
        self.reply("220 taking-back.example ESMTP")
        self.flush()

    def connection_lost(self, _error: Exception | None) -> None:
        self.house.open -= 1
        self.state = "deaf"

    def data_received(self, data: bytes) -> None:
        if self.state == "deaf":
            return
        self.buffer += data
        if self.state != "waiting":
            self.pump()

    def reply(self, text: str) -> None:
        self.replies.append(text)

    def flush(self) -> None:
        if self.replies:
            self.transport.write(("\r\n".join(self.replies) + "\r\n").encode())
            self.replies.clear()

    def close(self) -> None:
        self.state = "deaf"
        self.flush()
        self.transport.close()

    def reset(self) -> None:
        """A TCP reset, a moment after what was said before."""
        self.state = "deaf"
        self.flush()
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        asyncio.get_running_loop().call_later(0.001, self.transport.abort)

    def pump(self) -> None:
        """Goes through what has come, until more is needed or a mail waits for its reply."""
        while self.buffer and self.state not in ("waiting", "deaf"):
            went_on = {"data": self.pump_data, "chunk": self.pump_chunk, "command": self.pump_command}[self.state]()
            if not went_on:
                break
        if self.state != "deaf":
            self.flush()

    def pump_data(self) -> bool:
        end = self.buffer.find(b"\r\n.\r\n", max(0, self.scanned - 4))
        if end < 0:
            self.scanned = len(self.buffer)
            return False
        del self.buffer[: end + 5]
        self.ended()
        return True

    def pump_chunk(self) -> bool:
        """Passes over the octets of a BDAT. The zero-length one is done where it is read."""
        here = min(self.chunk, len(self.buffer))
        del self.buffer[:here]
        self.chunk -= here
        if self.chunk == 0:
            self.end_chunk()
        return True

    def end_chunk(self) -> None:
        self.state = "command"
        if self.refusal is not None:
            self.refuse(self.refusal)
        elif self.is_last_chunk:
            self.ended()
        else:
            self.reply("250 2.0.0 go on")

    def pump_command(self) -> bool:
        line = self.line()
        if line is None:
            return False
        self.command(line)
        return True

    def line(self) -> str | None:
        end = self.buffer.find(b"\n")
        if end < 0:
            return None
        line = self.buffer[:end].rstrip(b"\r").decode("utf-8", "surrogateescape")
        del self.buffer[: end + 1]
        return line

    def command(self, line: str) -> None:
        verb = line[:4].upper()
        if verb == "MAIL":
            self.mail()
        elif verb == "RCPT":
            self.rcpt(line)
        elif verb == "DATA":
            self.data()
        elif verb == "BDAT":
            self.bdat(line)
        elif verb == "RSET":
            self.forget_mail()
            self.reply("250 2.0.0 ok")
        elif verb == "EHLO":
            self.ehlo()
        elif verb in ("HELO", "NOOP"):
            self.reply("250 2.0.0 ok")
        elif verb == "QUIT":
            self.reply("221 2.0.0 bye")
            self.close()
        else:
            self.reply("500 5.5.2 unknown command")

    def ehlo(self) -> None:
        words = ["taking-back.example"]
        words += ["PIPELINING"] * self.settings.pipelining + ["CHUNKING"] * self.settings.chunking
        words += ["8BITMIME", "ENHANCEDSTATUSCODES", f"SIZE {self.settings.size}"]
        self.forget_mail()
        for word in words[:-1]:
            self.reply(f"250-{word}")
        self.reply(f"250 {words[-1]}")

    def session_end(self, at: str) -> str | None:
        """The refusal, where this session has had its mails."""
        settings = self.settings
        if not settings.session_max or self.mails < settings.session_max or settings.session_at != at:
            return None
        if settings.session_how == "421":
            return "421 4.7.0 too many messages in this session, closing"
        return "452 4.5.3 too many messages in this session"

    def refuse(self, refusal: str) -> None:
        if refusal:
            self.reply(refusal)
        if refusal.startswith("421"):
            self.close()

    def mail(self) -> None:
        if self.sender:
            self.reply("503 5.5.1 nested MAIL")
        elif refusal := self.session_end("mail"):
            self.refuse(refusal)
        else:
            self.sender = True
            self.reply("250 2.1.0 ok")

    def rcpt(self, line: str) -> None:
        recipient = line.partition("<")[2].partition(">")[0]
        if not self.sender:
            self.reply("503 5.5.1 MAIL first")
        elif refusal := self.session_end("rcpt"):
            self.refuse(refusal)
        elif self.settings.refuse and self.settings.refuse in recipient:
            self.reply("550 5.1.1 no such user")
        elif self.house.greylists(recipient):
            self.reply("450 4.7.1 greylisted, come again in a second")
        else:
            self.recipients.append(recipient)
            self.reply("250 2.1.5 ok")

    def data(self) -> None:
        if not self.recipients:
            self.reply("503 5.5.1 RCPT first")
        elif refusal := self.session_end("data"):
            self.refuse(refusal)
        else:
            self.state, self.scanned = "data", 0
            # The end is looked for with the line end before it, which for an empty mail is DATA's own.
            self.buffer[:0] = b"\r\n"
            self.reply("354 go ahead")

    def bdat(self, line: str) -> None:
        words = line.split()
        self.chunk = int(words[1])
        self.is_last_chunk = words[-1].upper() == "LAST"
        self.refusal = self.session_end("data") if self.recipients else "503 5.5.1 RCPT first"
        self.state = "chunk"
        if self.chunk == 0:
            self.end_chunk()

    def forget_mail(self) -> None:
        self.sender = False
        self.recipients = []

    def ended(self) -> None:
        """The whole mail is here."""
        wait = max(0.003 if self.settings.mode != "off" else 0, self.settings.delay_ms / 1000)
        if wait == 0:
            self.accept()
            return
        self.state = "waiting"
        self.flush()
        asyncio.get_running_loop().call_later(wait, self.judge)

    def accept(self) -> None:
        self.state = "command"
        self.mails += 1
        self.house.take(self.recipients)
        self.forget_mail()
        self.reply("250 2.0.0 taken")

    def judge(self) -> None:
        """Takes the mail, and takes the liberty back if it was used."""
        if self.state == "deaf":
            # The client went before its reply. The mail is taken all the same: it came whole.
            self.house.take(self.recipients)
            return
        mode = self.settings.mode if self.buffer else "off"
        if mode in ("hangup-lost", "reset-lost"):
            self.reset() if mode == "reset-lost" else self.close()
            return
        self.accept()
        if mode in ("hangup-taken", "reset-taken"):
            self.replies.clear()
        if mode == "503":
            self.refuse_ahead()
        elif mode == "421":
            self.reply("421 4.5.0 commands before my reply, closing")
        if mode in ("421", "close", "hangup-taken"):
            self.close()
        elif mode in ("reset", "reset-taken"):
            self.reset()
        elif mode == "nothing":
            self.flush()
            self.state = "deaf"
        elif mode == "forget":
            self.buffer.clear()
        if self.state != "deaf":
            self.pump()
            self.flush()

    def refuse_ahead(self) -> None:
        """503 to each command that is here. The octets of a BDAT belong to their command."""
        while (line := self.line()) is not None:
            self.reply("503 5.5.1 commands before my reply")
            if line[:4].upper() == "BDAT":
                self.chunk, self.refusal, self.state = int(line.split()[1]), "", "chunk"
                self.pump_chunk()
                if self.chunk:
                    break


async def main(port: int, path: str, words: list[str]) -> None:
    house = House(Settings.parse(words), os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644))
    server = await asyncio.get_running_loop().create_server(lambda: Session(house), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
