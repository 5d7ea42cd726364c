"""Verifies every DKIM signature of messages with dkimpy.

Takes a file of JSON lines: the message (base64), the records as a zone would hold them, and how many signatures there must be.
Prints what is wrong, ends with 1 if anything is.
"""

import base64
import json
import re
import sys

import dkim


def zone(lines):
    """The printed zone lines, as name and joined strings."""
    records = {}
    for line in lines:
        name, _, rest = line.partition(" ")
        records[name.encode()] = "".join(re.findall(r'"([^"]*)"', rest)).encode()
    return records


def faults(case):
    raw = base64.b64decode(case["bytes"])
    records = zone(case["zone"])
    signed = dkim.DKIM(raw)
    n = sum(1 for name, _ in signed.headers if name.lower() == b"dkim-signature")
    if n != case["signatures"]:
        yield f"{n} signatures instead of {case['signatures']}"
    for i in range(n):
        try:
            if not dkim.DKIM(raw).verify(idx=i, dnsfunc=lambda name, timeout=5: records.get(name)):
                yield f"signature {i} does not verify"
        except dkim.DKIMException as error:
            yield f"signature {i}: {error}"
    if n:
        include = [name.lower() for name in signed_names(raw)]
        for name in ["from", "to", "subject", "date", "list-unsubscribe", "list-unsubscribe-post"]:
            if name not in include:
                yield f"{name} is not signed"


def signed_names(raw):
    head = re.sub(rb"\r\n[ \t]+", b" ", raw.partition(b"\r\n\r\n")[0]).decode()
    line = next(line for line in head.split("\r\n") if line.startswith("DKIM-Signature:"))
    return re.sub(r"\s", "", re.search(r"\bh=([^;]*)", line).group(1)).split(":")


def main():
    wrong = total = 0
    with open(sys.argv[1], encoding="utf-8") as cases:
        for number, line in enumerate(cases, 1):
            case = json.loads(line)
            total += case["signatures"]
            found = list(faults(case))
            if found:
                wrong += 1
                if wrong <= 10:
                    print(f"message {number}: {found}")
    print(f"{total} signatures, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
