"""A server on aiosmtpd as it comes: takes every mail and writes a line with each recipient to a file.

    aiosmtpd_taker.py PORT FILE REFUSED-ADDRESS
"""

import asyncio
import sys

from aiosmtpd.smtp import SMTP, Envelope, Session


class Taker:
    def __init__(self, path: str, refused: str) -> None:
        self.refused = refused
        self.taken = open(path, "a", encoding="utf-8", buffering=1)

    async def handle_RCPT(self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]) -> str:
        if address == self.refused:
            return "550 5.1.1 No such user"
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options += options
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        self.taken.write("".join(f"{recipient}\n" for recipient in envelope.rcpt_tos))
        return "250 OK"


async def main(port: int, path: str, refused: str) -> None:
    taker = Taker(path, refused)
    server = await asyncio.get_running_loop().create_server(lambda: SMTP(taker), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
