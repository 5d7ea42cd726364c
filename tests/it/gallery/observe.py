"""Sends mail to a server of the gallery with raw sockets, and prints what it did: its announcement, its replies to what is written
ahead of them, and its limits. OBSERVED.md was written from this.

    observe.py NAME... [--relays DIR] [--set KEY=VALUE...] [--skip a,b...] [--connections N]
"""

import argparse
import base64
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).parent
CONTENT = (
    b"From: <news@example.org>\r\nTo: <x@example.com>\r\nSubject: news\r\nMessage-ID: <%d.%d@example.org>\r\n"
    b"Date: Fri, 27 Nov 2026 12:00:00 +0000\r\n\r\n" + b"Some words that fill a line of about seventy characters, and end.\r\n" * 20
)
HELD: list = []


def content() -> bytes:
    return CONTENT % (time.monotonic_ns(), threading.get_ident())


class Gone(Exception):
    pass


class Client:
    def __init__(self, port: int, timeout: float = 20, login: tuple[str, str] | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.login = login

    def reply(self, timeout: float | None = None) -> str:
        if timeout is not None:
            self.socket.settimeout(timeout)
        lines = []
        while True:
            while b"\n" not in self.buffer:
                try:
                    more = self.socket.recv(65_536)
                except TimeoutError:
                    raise Gone("(silence)") from None
                except OSError as error:
                    raise Gone(f"(reset: {error.strerror})") from None
                if not more:
                    raise Gone("(closed)")
                self.buffer += more
            line, _, self.buffer = self.buffer.partition(b"\n")
            lines.append(line.rstrip(b"\r").decode("utf-8", "replace"))
            if lines[-1][3:4] != "-":
                return "\n".join(lines)

    def write(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except OSError as error:
            raise Gone(f"(write: {error.strerror})") from None

    def ask(self, line: str) -> str:
        self.write(line.encode() + b"\r\n")
        return self.reply()

    def hello(self) -> tuple[str, str]:
        banner = self.reply()
        if not banner.startswith("220"):
            raise Gone(banner)
        announced = self.ask("EHLO client.example")
        if self.login:
            words = base64.b64encode(b"\0" + "\0".join(self.login).encode()).decode()
            said = self.ask(f"AUTH PLAIN {words}")
            if not said.startswith("235"):
                raise Gone(said)
        return banner, announced

    def send(self, recipient: str) -> str:
        """One mail, each command with its reply. Returns the first reply that refuses, or the last one."""
        for line in ("MAIL FROM:<news@example.org>", f"RCPT TO:<{recipient}>", "DATA"):
            said = self.ask(line)
            if said[0] not in "23":
                return f"{line[:4]}: {said}"
        self.write(content() + b".\r\n")
        return self.reply()

    def close(self) -> None:
        try:
            self.socket.sendall(b"QUIT\r\n")
            self.reply(2)
        except (OSError, Gone):
            pass
        self.socket.close()


class Running:
    def __init__(self, name: str, relays: str, words: list[str]) -> None:
        self.dir = tempfile.TemporaryDirectory(prefix=f"gallery-{name}-")
        self.call = [sys.executable, str(HERE / "relay.py"), name, "--dir", self.dir.name, "--relays", relays]
        self.start([part for word in words for part in ("--set", word)])

    def again(self) -> "Running":
        self.start(["--port", str(self.port)])
        return self

    def start(self, words: list[str]) -> None:
        start = time.monotonic()
        self.process = subprocess.Popen(self.call + words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("it did not start")
        self.facts = json.loads(line)
        self.facts["start_s"] = round(time.monotonic() - start, 2)
        self.port = self.facts["port"]
        self.login = (self.facts["user"], self.facts["password"]) if "user" in self.facts else None

    def client(self, timeout: float = 20) -> Client:
        return Client(self.port, timeout, self.login)

    def count(self) -> dict[str, int]:
        return json.loads(subprocess.run(self.call + ["--count"], capture_output=True, text=True, check=True).stdout)

    def await_count(self, addresses: list[str]) -> str:
        """Whether each of these got one copy, and nobody else of theirs."""
        wrong: dict[str, int] = {}
        for _ in range(20):
            copies = self.count()
            wrong = {address: copies.get(address, 0) for address in addresses if copies.get(address, 0) != 1}
            if not wrong:
                return f"{len(addresses)} once each"
            time.sleep(0.25)
        return f"NOT once: {len(wrong)} of {len(addresses)}: {dict(list(wrong.items())[:3])}"

    def stop(self) -> float:
        start = time.monotonic()
        self.process.stdin.close()
        self.process.wait(20)
        return round(time.monotonic() - start, 2)


def shortly(replies: list[str]) -> str:
    """A list of replies, with a number instead of the same one again. What differs in each mail is cut out."""
    out: list[list] = []
    for reply in replies:
        said = reply.replace("\n", " / ")
        key = re.sub(r"\d+@|[0-9A-Za-z_.-]*\d[0-9A-Za-z_.-]{5,}", "…", said[4:])
        if out and out[-1][0] == (said[:4], key):
            out[-1][2] += 1
        else:
            out.append([(said[:4], key), said, 1])
    return "; ".join(f"{said}" if n == 1 else f"{n}× {said}" for _, said, n in out)


def say(part: str, text: str) -> None:
    print(f"  {part}: {text}", flush=True)


def one_by_one(running: Running, n: int = 300, connections: int = 8) -> None:
    """(b)"""
    refused: list[str] = []
    taken: list[str] = []

    def work(k: int) -> None:
        client = None
        for i in range(k, n, connections):
            for _ in range(3):
                try:
                    if client is None:
                        client = running.client()
                        client.hello()
                    said = client.send(f"b{i}@d{i % 7}.example")
                except (Gone, OSError) as error:
                    refused.append(str(error))
                    client = None
                    continue
                if said.startswith("250"):
                    taken.append(f"b{i}@d{i % 7}.example")
                    break
                refused.append(said)
                client.close()
                client = None
        if client:
            client.close()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(connections)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = len(taken) / (time.monotonic() - start)
    say("b", f"{len(taken)} of {n} taken, {rate:.0f}/s; {running.await_count(taken)}; refused: {shortly(refused) or 'none'}")


def written_ahead(running: Running, announced: str, between: str = "") -> None:
    """(c)"""
    tag = "c'" if between else "c"
    if "PIPELINING" not in announced:
        say("c", "no PIPELINING announced; tried all the same")
    client = running.client(4)
    client.hello()
    told: list[str] = []
    to = [f"c{len(between)}{i}@example.com" for i in range(20)]
    try:
        client.write(f"MAIL FROM:<news@example.org>\r\nRCPT TO:<{to[0]}>\r\nDATA\r\n".encode())
        told.append(" | ".join(client.reply() for _ in range(3)))
        for i in range(1, 20):
            client.write(content() + f".\r\n{between}MAIL FROM:<news@example.org>\r\nRCPT TO:<{to[i]}>\r\nDATA\r\n".encode())
            group: list[str] = []
            try:
                while len(group) < (5 if between else 4):
                    group.append(client.reply())
            finally:
                told.append(" | ".join(group))
            if not group[-1].startswith("354"):
                break
        else:
            client.write(content() + b".\r\n")
            told.append(client.reply())
        while True:  # anything more?
            told.append("then " + client.reply(1))
    except Gone as error:
        told.append(str(error))
    client.close()
    time.sleep(0.5)
    copies = running.count()
    taken = sum(1 for address in to if copies.get(address) == 1)
    say(tag, f"{taken} of 20 taken: {shortly(told)}")


def chunks(running: Running, announced: str) -> None:
    """(d)"""
    if "CHUNKING" not in announced:
        say("d", "no CHUNKING announced")
        return
    to = [f"d{i}@example.com" for i in range(60)]
    told = []
    client = running.client(5)
    client.hello()
    try:
        for address in to[:20]:
            body = content()
            for line in ("MAIL FROM:<news@example.org>", f"RCPT TO:<{address}>"):
                told.append(client.ask(line))
            client.write(f"BDAT {len(body)} LAST\r\n".encode() + body)
            told.append(client.reply())
    except Gone as error:
        told.append(str(error))
    say("d", f"alone: {running.await_count(to[:20])}: {shortly(told[-3:])}")
    client.close()
    for between in ("RSET\r\n", ""):
        told = []
        to = [f"d{len(between)}{i}@example.com" for i in range(40)]
        client = running.client(5)
        client.hello()
        try:
            for start in range(0, 40, 8):
                group = b""
                for address in to[start : start + 8]:
                    body = content()
                    group += f"{between}MAIL FROM:<news@example.org>\r\nRCPT TO:<{address}>\r\nBDAT {len(body)} LAST\r\n".encode() + body
                client.write(group)
                told += [client.reply() for _ in range(32 if between else 24)]
        except Gone as error:
            told.append(str(error))
        client.close()
        say("d", f"windows of 8, {'with' if between else 'without'} RSET: {running.await_count(to)}: {shortly(told[-5:])}")


def session_end(running: Running, n: int = 1200) -> None:
    """(e)"""
    client = running.client()
    client.hello()
    start = time.monotonic()
    for i in range(n):
        try:
            said = client.send(f"e{i}@example.com")
        except Gone as error:
            said = str(error)
        if not said.startswith("250"):
            after = []
            try:
                for _ in range(2):
                    after.append(client.send(f"ee{i}@example.com"))
            except Gone as error:
                after.append(str(error))
            say("e", f"after {i} mails: {said}; then {shortly(after)}")
            return
    say("e", f"{n} mails in a session, {n / (time.monotonic() - start):.0f}/s on one connection")
    client.close()


def connections_end(running: Running, n: int = 60) -> None:
    """(f)"""
    for i in range(n):
        try:
            client = running.client(15)
            HELD.append(client)
            client.hello()
        except (Gone, OSError) as error:
            say("f", f"connection {i + 1} of one address: {error}")
            break
    else:
        say("f", f"{n} connections of one address, all greeted")
    for client in HELD:
        client.close()
    HELD.clear()


def cut_off(running: Running) -> None:
    """(g) a client that goes in the middle of the data, and one that goes right after the dot"""
    client = running.client()
    client.hello()
    client.ask("MAIL FROM:<news@example.org>")
    client.ask("RCPT TO:<half@example.com>")
    client.ask("DATA")
    client.write(content()[:300])
    client.socket.close()
    client = running.client()
    client.hello()
    client.ask("MAIL FROM:<news@example.org>")
    client.ask("RCPT TO:<gone@example.com>")
    client.ask("DATA")
    client.write(content() + b".\r\n")
    client.socket.close()
    time.sleep(1)
    copies = running.count()
    say("g", f"cut off in the data: {copies.get('half@example.com', 0)} copies; gone after the dot: {copies.get('gone@example.com', 0)}")


def refused(running: Running, announced: str) -> None:
    """(h) a mail to the recipient it was told to refuse, between two others, all in one write up to the next content"""
    to = ["h1@example.com", "refused@example.com", "h2@example.com"]
    client = running.client(4)
    client.hello()
    told: list[str] = []
    try:
        for address in to:
            told.append(client.ask("MAIL FROM:<news@example.org>"))
            if "PIPELINING" in announced:
                client.write(f"RCPT TO:<{address}>\r\nDATA\r\n".encode())
                told += [client.reply(), client.reply()]
            else:
                told += [client.ask(f"RCPT TO:<{address}>"), client.ask("DATA")]
            if told[-1].startswith("354"):
                client.write((b"" if told[-2].startswith("5") else content()) + b".\r\n")
                told.append(client.reply())
            told.append(client.ask("RSET"))
    except Gone as error:
        told.append(str(error))
    client.close()
    time.sleep(0.3)
    copies = running.count()
    say("h", f"copies {[copies.get(address, 0) for address in to]}: {' | '.join(said.replace(chr(10), ' / ') for said in told)}")


def started_again(running: Running) -> Running:
    """(i) ended and started in the same place and at the same port"""
    before = sum(running.count().values())
    running.stop()
    again = running.again()
    client = again.client()
    client.hello()
    client.send("i@example.com")
    client.close()
    time.sleep(0.3)
    copies = again.count()
    say("i", f"ended and started again at the same port in {again.facts['start_s']} s; it had {before} copies, and has {sum(copies.values())}")
    return again


def observe(name: str, relays: str, words: list[str], skip: set[str], connections: int) -> None:
    print(f"{name} {' '.join(words)}", flush=True)
    running = Running(name, relays, words)
    say("start", json.dumps(running.facts))
    client = running.client()
    start = time.monotonic()
    banner, announced = client.hello()
    say("a", f"{banner!r} after {time.monotonic() - start:.2f} s; {announced.replace(chr(10), ' / ')}")
    client.close()
    parts = {
        "b": lambda: one_by_one(running, connections=connections),
        "c": lambda: written_ahead(running, announced),
        "c'": lambda: written_ahead(running, announced, "RSET\r\n"),
        "d": lambda: chunks(running, announced),
        "e": lambda: session_end(running),
        "f": lambda: connections_end(running),
        "g": lambda: cut_off(running),
        "h": lambda: refused(running, announced),
    }
    for part, run in parts.items():
        if part not in skip:
            try:
                run()
            except (Gone, OSError) as error:
                say(part, f"broken off: {error}")
    if "i" not in skip:
        running = started_again(running)
    before = running.count()
    say("end", f"{running.stop()} s; the count is {'the same' if running.count() == before else 'ANOTHER'} afterwards")
    running.dir.cleanup()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--relays", default="target/relays")
    parser.add_argument("--set", action="append", default=["refuse=refused@example.com"])
    parser.add_argument("--skip", default="")
    parser.add_argument("--connections", type=int, default=8, help="for part b")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for name in given.names:
        observe(name, given.relays, given.set, set(given.skip.split(",")), given.connections)


if __name__ == "__main__":
    main()
