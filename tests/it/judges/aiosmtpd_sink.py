"""A relay on aiosmtpd: takes every message and writes a line with its recipient to the file named by the first argument.
Prints its port once it listens, and runs until it is killed."""

import asyncio
import sys

from aiosmtpd.smtp import SMTP


class Taker:
    def __init__(self, path):
        self.taken = open(path, "a", encoding="utf-8", buffering=1)

    async def handle_DATA(self, server, session, envelope):
        for recipient in envelope.rcpt_tos:
            self.taken.write(recipient + "\n")
        return "250 2.0.0 taken"


async def main():
    taker = Taker(sys.argv[1])
    server = await asyncio.get_running_loop().create_server(lambda: SMTP(taker, enable_SMTPUTF8=True), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
