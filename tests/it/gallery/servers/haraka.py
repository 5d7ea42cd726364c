"""Haraka, a mail server for Node.js. It is known for plugins and for many connections at once.

Commands that arrive before its reply to the end of the data get 503, one each, after the 250."""

import json
import shutil

from base import Server

PLUGIN = """
'use strict';
// Takes mail for everybody, writes down whom for, and delivers nothing.
const fs = require('node:fs');
const taken = fs.openSync(process.env.TAKEN, 'a');
const text = (it) => (typeof it.address === 'function' ? it.address() : it.address);
exports.hook_rcpt = (next, connection, [rcpt]) => (text(rcpt) === process.env.REFUSED ? next(DENY) : next(OK));
exports.hook_queue = (next, connection) => {
    const all = connection.transaction.rcpt_to;
    fs.writeSync(taken, all.map((it) => text(it) + '\\n').join(''));
    next(OK);
};
"""


class Haraka(Server):
    name = "haraka"
    packages = "npm"
    needs_root = False

    def prepare(self) -> None:
        program = self.relays / "npm/node_modules/haraka"
        config = self.dir / "config"
        (self.dir / "plugins").mkdir(exist_ok=True)
        shutil.copytree(program / "config", config, dirs_exist_ok=True)
        (config / "smtp.ini").write_text(f"listen=127.0.0.1:{self.port}\n")
        (config / "plugins").write_text("taker\n")
        (config / "me").write_text("relay.example\n")
        (self.dir / "plugins/taker.js").write_text(PLUGIN)

    def command(self) -> list[str]:
        return [node(self), str(self.relays / "npm/node_modules/haraka/bin/haraka"), "-c", str(self.dir)]

    def environment(self) -> dict[str, str]:
        return {"TAKEN": str(self.taken), "REFUSED": self.refused}

    def version(self) -> str:
        return npm_version(self, "haraka")


def node(server: Server) -> str:
    return str(server.relays / "npm/bin/node")


def npm_version(server: Server, package: str) -> str:
    return json.loads((server.relays / "npm/node_modules" / package / "package.json").read_text())["version"]
