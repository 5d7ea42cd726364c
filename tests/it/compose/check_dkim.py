"""Verifies every DKIM signature of messages with dkimpy.

Reads lines of three fields, parted by tabs: the records as a zone would hold them and how many signatures there must be (JSON),
a field for others, and the message (base64). Prints what is wrong, ends with 1 if anything is.
"""

import base64
import functools
import json
import re
import sys

import dkim


@functools.lru_cache
def told(text):
    """What is expected, with the printed zone lines as name and joined strings."""
    case = json.loads(text)
    records = {}
    for line in case["zone"]:
        name, _, rest = line.partition(" ")
        records[name.encode()] = "".join(re.findall(r'"([^"]*)"', rest)).encode()
    return {"rsa": case["rsa"], "ed25519": case["ed25519"]}, records


def faults(wanted, records, raw):
    signatures = [value for name, value in dkim.DKIM(raw).headers if name.lower() == b"dkim-signature"]
    found = {kind: sum(f"a={kind}-sha256;".encode() in value for value in signatures) for kind in wanted}
    if found != wanted or len(signatures) != sum(wanted.values()):
        yield f"{len(signatures)} signatures, {found}, instead of {wanted}"
    for i in range(len(signatures)):
        try:
            if not dkim.DKIM(raw).verify(idx=i, dnsfunc=lambda name, timeout=5: records.get(name)):
                yield f"signature {i} does not verify"
        except dkim.DKIMException as error:
            yield f"signature {i}: {error}"
    if signatures:
        include = [name.lower() for name in signed_names(raw)]
        for name in ["from", "to", "subject", "date", "list-unsubscribe", "list-unsubscribe-post"]:
            if name not in include:
                yield f"{name} is not signed"


def signed_names(raw):
    head = re.sub(rb"\r\n[ \t]+", b" ", raw.partition(b"\r\n\r\n")[0]).decode()
    line = next(line for line in head.split("\r\n") if line.startswith("DKIM-Signature:"))
    return re.sub(r"\s", "", re.search(r"\bh=([^;]*)", line).group(1)).split(":")


def main():
    wrong = messages = 0
    total = {"rsa": 0, "ed25519": 0}
    for line in sys.stdin.buffer:
        expected, _, message = line.split(b"\t")
        wanted, records = told(expected)
        messages += 1
        for kind in total:
            total[kind] += wanted[kind]
        found = list(faults(wanted, records, base64.b64decode(message)))
        if found:
            wrong += 1
            if wrong <= 10:
                print(f"message {messages}: {found}")
    counted = f"{total['rsa']} RSA and {total['ed25519']} Ed25519 signatures verified"
    print(f"{messages} messages, {counted}, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
