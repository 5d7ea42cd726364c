"""Starts a real SMTP server on a free loopback port, with its default settings, and says whom it took mail for.

    relay.py NAME --dir DIR [--relays target/relays] [--port N] [--set KEY=VALUE...]
        starts it, prints one line of JSON as soon as it greets ({"port": ..., "taken": ..., "version": ...}), and ends it, with all its
        processes, when the standard input closes or on SIGTERM
    relay.py NAME --dir DIR --count
        prints {"address": copies, ...}, while it runs and afterwards
    relay.py --names

`--set refuse=ADDRESS` makes the server refuse that recipient (not courier and smtp-sink); what else can be set is at each server.
scripts/relays gets the servers. Nothing leaves the machine: what a server took stays in its queue or is thrown away.
"""

import argparse
import json
import os
import sys
from pathlib import Path

sys.dont_write_bytecode = True

import base  # noqa: E402
from servers import SERVERS  # noqa: E402


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=sorted(SERVERS))
    parser.add_argument("--names", action="store_true")
    parser.add_argument("--dir", type=Path)
    parser.add_argument("--relays", type=Path, default=Path("target/relays"))
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--count", action="store_true")
    return parser.parse_args()


def main() -> int:
    given = arguments()
    if given.names:
        print("\n".join(SERVERS))
        return 0
    if given.name is None or given.dir is None:
        raise SystemExit("relay.py: which server, and in which --dir?")
    kind = SERVERS[given.name]
    server = kind(given.dir.resolve(), given.relays.resolve(), given.port or base.free_port(), given.set)
    if given.count:
        print(json.dumps(server.count()))
        return 0
    if os.geteuid() != 0 and kind.needs_root:
        os.execvp("sudo", ["sudo", "-n", sys.executable, *sys.argv])
    if server.packages and not (server.relays / server.packages).is_dir():
        raise SystemExit(f"{server.relays / server.packages} is missing: run scripts/relays")
    server.dir.mkdir(parents=True, exist_ok=True)
    # The servers give up root, and must still find their way in.
    server.dir.chmod(0o755)
    if os.geteuid() == 0:
        return base.run_in_world(server)
    base.run(server)
    return 0


sys.exit(main())
