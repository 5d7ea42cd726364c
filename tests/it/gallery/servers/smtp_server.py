"""smtp-server, the server module of Nodemailer. It is known as the base of many small servers written for Node.js."""

from base import Server

from .haraka import node, npm_version

SCRIPT = """
'use strict';
// Takes mail for everybody and writes down whom for. All else is as the module comes, but that it asks for no password.
const fs = require('node:fs');
const { SMTPServer } = require(process.env.MODULE);
const taken = fs.openSync(process.env.TAKEN, 'a');
new SMTPServer({
    authOptional: true,
    onRcptTo(to, session, done) {
        done(to.address === process.env.REFUSED ? Object.assign(new Error('No such user'), { responseCode: 550 }) : null);
    },
    onData(stream, session, done) {
        stream.resume();
        stream.on('end', () => {
            fs.writeSync(taken, session.envelope.rcptTo.map((it) => it.address + '\\n').join(''));
            done();
        });
    },
}).listen(Number(process.env.PORT), '127.0.0.1');
"""


class SmtpServer(Server):
    name = "smtp-server"
    packages = "npm"
    needs_root = False

    def prepare(self) -> None:
        (self.dir / "server.js").write_text(SCRIPT)

    def command(self) -> list[str]:
        return [node(self), str(self.dir / "server.js")]

    def environment(self) -> dict[str, str]:
        module = self.relays / "npm/node_modules/smtp-server"
        return {"MODULE": str(module), "TAKEN": str(self.taken), "PORT": str(self.port), "REFUSED": self.refused}

    def version(self) -> str:
        return npm_version(self, "smtp-server")
