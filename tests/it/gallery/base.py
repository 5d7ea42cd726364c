"""What all servers of the gallery have in common: a world of their own, a start, and an end that leaves nothing running.

As root a server runs in namespaces of its own. Its packages, unpacked beside the system, are laid over /usr, /etc and /var there and
nowhere else, /run and /var are empty of the machine's own, and all its processes end with the first one. Without root it runs as it is;
the servers that cannot are started through `sudo -n`.
"""

import collections
import ctypes
import errno
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWPID = 0x00020000, 0x04000000, 0x20000000
MS_RDONLY, MS_REC, MS_PRIVATE, MS_BIND = 0x1, 0x4000, 0x40000, 0x1000
PR_SET_PDEATHSIG = 1
HOST = "relay.example"
libc = ctypes.CDLL(None, use_errno=True)


class Server:
    """One server. A subclass says what it needs and how it starts; `self.dir` is its own directory."""

    name = ""
    # The folder in `relays` with its packages, if they are not the system's.
    packages: str | None = None
    needs_root = True
    # Users to be made, as lines of /etc/passwd; each gets the group of its number.
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    # How long it may take until it greets.
    patience = 60.0

    def __init__(self, directory: Path, relays: Path, port: int, settings: list[str]) -> None:
        self.dir = directory
        self.relays = relays
        self.port = port
        self.words = settings  # as they were given
        self.settings = dict(word.split("=", 1) for word in settings)
        # `--set refuse=ADDRESS`: the one recipient that is refused, in the server's own way.
        self.refused = self.settings.pop("refuse", "")

    @property
    def log(self) -> Path:
        """What it says on its standard output and error."""
        return self.dir / "log"

    @property
    def taken(self) -> Path:
        """The file from which `count` knows whom mail was taken for."""
        return self.dir / "taken"

    def prepare(self) -> None:
        """Writes its configuration, inside its world."""

    def command(self) -> list[str]:
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        return {}

    def version(self) -> str:
        return ""

    def facts(self) -> dict[str, object]:
        """More for the line of JSON."""
        return {}

    def is_alive(self, process: subprocess.Popen) -> bool:
        return process.poll() is None

    def stop(self) -> None:
        """Before its processes are ended: what makes it write down what it knows."""

    def count(self) -> collections.Counter[str]:
        """Copies by recipient: one line for each in the plain case."""
        return collections.Counter(lines_of(self.taken))


def lines_of(path: Path) -> list[str]:
    if not path.exists():
        return []
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def said_by(command: list[str], environment: dict[str, str] | None = None) -> str:
    """The first line a program says, for its version."""
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**os.environ, **(environment or {})})
    return (result.stdout + result.stderr).strip().partition("\n")[0]


# ---- a world of its own --------------------------------------------------------------------------------------------------------------


def checked(result: int, what: str) -> None:
    if result != 0:
        raise SystemExit(f"{what}: {os.strerror(ctypes.get_errno())}; namespaces of one's own need root's full rights")


def mount(source: str, target: Path | str, kind: str | None, flags: int = 0, data: str | None = None) -> None:
    words = [word.encode() if word is not None else None for word in (source, str(target), kind)]
    checked(libc.mount(*words, ctypes.c_ulong(flags), data.encode() if data else None), f"mount {target}")


def die_with_parent() -> None:
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def lay_over(target: str, tree: Path | None, upper: Path) -> None:
    """Lays a folder of the packages over the system's. What is written goes into memory, and ends with the world."""
    for name in ("up", "work"):
        (upper / name).mkdir(parents=True)
    lower = [str(path) for path in (tree / target.lstrip("/") if tree else None, Path(target)) if path and path.is_dir()]
    mount("overlay", target, "overlay", 0, f"lowerdir={':'.join(lower)},upperdir={upper}/up,workdir={upper}/work")


def own_dev(room: Path) -> None:
    """A /dev with a /dev/log of its own: not all of these servers can log anywhere else."""
    names = [name for name in ("null", "zero", "full", "random", "urandom", "tty") if os.path.exists(f"/dev/{name}")]
    room.mkdir()
    for name in names:
        new = room / name
        new.touch()
        mount(f"/dev/{name}", new, None, MS_BIND)
    (room / "shm").mkdir(0o1777)
    for name, target in (("fd", "/proc/self/fd"), ("stdin", "fd/0"), ("stdout", "fd/1"), ("stderr", "fd/2")):
        (room / name).symlink_to(target)
    mount(str(room), "/dev", None, MS_BIND | MS_REC)


def own_names(server: Server, name_server: str) -> None:
    """A qualified name for this machine, a name server, and the users the packages would have made."""
    libc.sethostname(HOST.encode(), len(HOST))
    files = {
        "hosts": f"127.0.0.1 localhost\n127.0.1.1 {HOST} relay\n",
        "hostname": HOST + "\n",
        "mailname": HOST + "\n",
        "resolv.conf": f"nameserver {name_server}\n",
        "nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    }
    for name, text in files.items():
        path = Path("/etc", name)
        path.unlink(missing_ok=True)
        path.write_text(text)
    known = {line.split(":")[0] for line in lines_of(Path("/etc/passwd"))}
    with open("/etc/passwd", "a") as passwd, open("/etc/group", "a") as group:
        for user in server.users:
            name, _, number = user.split(":")[:3]
            if name not in known:
                passwd.write(f"{user}\n")
                group.write(f"{name}:x:{number}:\n")
        for line in server.groups:
            group.write(f"{line}\n")


def enter_world(server: Server) -> None:
    """Run by the first process in it."""
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc")
    kept = [os.open(path, os.O_PATH) for path in (server.dir, server.relays, Path(__file__).parent)]
    paths = [server.dir, server.relays, Path(__file__).parent.resolve()]
    room = server.dir / "world"
    room.mkdir(exist_ok=True)
    mount("tmpfs", room, "tmpfs", 0, "mode=755")
    tree = server.relays / server.packages if server.packages else None
    for target in ("/usr", "/etc", "/var"):
        lay_over(target, tree, room / target.lstrip("/"))
    own_dev(room / "dev")
    mount("tmpfs", "/run", "tmpfs", 0, "mode=755")
    # Our own folders, if they lie in one of those.
    for fd, path in zip(kept, paths, strict=True):
        if str(path).startswith(("/usr/", "/etc/", "/var/", "/run/")):
            path.mkdir(parents=True, exist_ok=True)
            mount(f"/proc/self/fd/{fd}", path, None, MS_BIND | MS_REC)
        os.close(fd)
    own_names(server, serve_names())


def serve_names() -> str:
    """A name server that knows each name and answers at once, so that no server waits for a look-up. Returns its address."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    while True:
        address = f"127.83.{random.randrange(256)}.{random.randrange(1, 255)}"
        try:
            server.bind((address, 53))
            break
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise

    def run() -> None:
        while True:
            query, client = server.recvfrom(4096)
            server.sendto(name_answer(query), client)

    threading.Thread(target=run, daemon=True).start()
    return address


def name_answer(query: bytes) -> bytes:
    """192.0.2.1 for a name, nothing for other types, and that it does not exist for what begins with a number: an address that is
    looked up backwards, or in a block list."""
    end = query.index(b"\0", 12) + 5
    question = query[12:end]
    is_number = question[1 : 1 + question[0]].isdigit()
    has_address = question[-4:] == b"\0\1\0\1" and not is_number
    flags = b"\x81\x83" if is_number else b"\x81\x80"
    answer = b"\xc0\x0c\0\1\0\1\0\0\x0e\x10\0\4\xc0\0\2\1" if has_address else b""
    return query[:2] + flags + b"\0\1" + struct.pack(">H", bool(answer)) + b"\0\0\0\0" + question + answer


def keep_syslog(path: Path) -> None:
    """Writes down what is said to /dev/log."""
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    log.bind("/dev/log")
    os.chmod("/dev/log", 0o666)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def run() -> None:
        while True:
            os.write(file, log.recv(65_536).rstrip(b"\0\n") + b"\n")

    threading.Thread(target=run, daemon=True).start()


# ---- start and end -------------------------------------------------------------------------------------------------------------------


def greets(port: int) -> bool:
    """Whether a 220 comes. Asks from another address than a test would, so as not to be counted with it."""
    try:
        with socket.create_connection(("127.0.0.1", port), 15, ("127.0.0.9", 0)) as asking:
            is_there = asking.recv(3) == b"220"
            if is_there:
                asking.sendall(b"QUIT\r\n")
            return is_there
    except OSError:
        return False


def wait_for_greeting(server: Server, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + server.patience
    while not greets(server.port):
        if is_asked_to_end(0):
            raise SystemExit(143)
        if not server.is_alive(process) or time.monotonic() > deadline:
            last = "\n".join(line for name in ("log", "syslog") for line in lines_of(server.dir / name)[-20:])
            raise SystemExit(f"{server.name} does not greet on port {server.port}\n{last}")
        time.sleep(0.02)


def listen_for_the_end() -> None:
    """Makes a signal readable, beside our input."""
    global woken
    woken, waking = os.pipe()
    for end in (woken, waking):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(waking)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)


def is_asked_to_end(seconds: float | None) -> bool:
    """Whether our input has closed or a signal has come, within so many seconds."""
    ready = select.select([sys.stdin, woken], [], [], seconds)[0]
    return woken in ready or (sys.stdin in ready and not os.read(sys.stdin.fileno(), 4096))


def wait_for_end() -> None:
    while not is_asked_to_end(None):
        pass


def run(server: Server) -> None:
    """Starts the server, says so in a line of JSON, and ends it when asked."""
    listen_for_the_end()
    server.prepare()
    with open(server.log, "ab") as log:
        process = subprocess.Popen(
            server.command(),
            cwd=server.dir,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **server.environment()},
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    try:
        wait_for_greeting(server, process)
        line = {"port": server.port, "taken": str(server.taken), "version": server.version(), **server.facts()}
        print(json.dumps(line), flush=True)
        wait_for_end()
        server.stop()
    finally:
        end(process)


def end(process: subprocess.Popen) -> None:
    """A moment for it to write down what it knows; then its whole group is killed."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def run_in_world(server: Server) -> int:
    """Runs it in namespaces of its own, whose first process this one waits for."""
    checked(libc.unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWPID), "unshare")
    first = os.fork()
    if first == 0:
        die_with_parent()
        # A signal that the parent got before this one could.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
        enter_world(server)
        keep_syslog(server.dir / "syslog")
        run(server)
        return 0
    asked = False

    def pass_on(*_: object) -> None:
        nonlocal asked
        asked = True
        os.kill(first, signal.SIGTERM)
        signal.alarm(6)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(first, signal.SIGKILL))
    # Its mounts go with the last process in it. An empty folder `world` is left: to clear it up from here would go through the mounts.
    status = os.waitpid(first, 0)[1]
    return 0 if asked else os.waitstatus_to_exitcode(status)
