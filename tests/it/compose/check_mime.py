"""Reads messages with Python's own mail parser and compares them with what was put in.

Reads lines of three fields, parted by tabs: one for others, then the headers, addresses, subject and bodies that a reader
must find (JSON), and the message (base64). Prints what is wrong, ends with 1 if anything is.
"""

import base64
import email
import email.header
import email.policy
import email.utils
import functools
import json
import re
import sys
import urllib.parse


@functools.lru_cache(maxsize=10_000)
def parsed(name, value):
    return email.policy.SMTP.header_fetch_parse(name, value)


class Remembering(email.policy.EmailPolicy):
    """The policy SMTP, which parses a header anew at every look at it; most of the time went there."""

    def header_fetch_parse(self, name, value):
        return parsed(name, value)


POLICY = Remembering(linesep="\r\n")


def faults(case, raw):
    head, _, body = raw.partition(b"\r\n\r\n")
    if re.search(rb"\r(?!\n)|(?<!\r)\n", raw):
        yield "a bare CR or LF"
    # What a relay put before the message may have more than ASCII (RFC 6532); the message has not.
    if not raw[case.get("trace_bytes", 0):].isascii():
        yield "a byte beyond ASCII"
    if b"\0" in raw:
        yield "a NUL"
    if any(len(line) > 998 for line in head.split(b"\r\n")):
        yield "a header line longer than 998"
    if any(len(line) > 76 for line in body.split(b"\r\n")):
        yield "a body line longer than 76"
    if not raw.endswith(b"\r\n"):
        yield "no line break at the end"

    message = email.message_from_bytes(raw, policy=POLICY)
    if sorted(message.keys()) != sorted(case["headers"]):
        yield f"headers {message.keys()} instead of {case['headers']}"
    for part in message.walk():
        if part.defects:
            yield f"defects {part.defects}"
        for name, value in part.items():
            if value.defects and not named_twice(part, name, value):
                yield f"defects in {name}: {value.defects} {str(value)!r}"
    older = email.message_from_bytes(head + b"\r\n\r\n", policy=email.policy.compat32)
    for field in ["from", "to"]:
        found = [a.addr_spec for a in message[field].addresses]
        if found != [case[field][0]]:
            yield f"{field} {found} instead of {case[field][0]}"
        if shown_name(older[field]) != case[field][1]:
            yield f"{field} shows {shown_name(older[field])!r} instead of {case[field][1]!r}"
    if str(message["subject"]) != case["subject"]:
        yield f"subject {str(message['subject'])!r} instead of {case['subject']!r}"
    if message["subject"] is not None and re.search(r"[\r\n\0]", str(message["subject"])):
        yield "a line break in the decoded subject"
    if not re.fullmatch(r"<https://mail\.example\.org/u/[A-Za-z0-9_-]+>", str(message["list-unsubscribe"])):
        yield f"list-unsubscribe {message['list-unsubscribe']}"
    if str(message["list-unsubscribe-post"]) != "List-Unsubscribe=One-Click":
        yield f"list-unsubscribe-post {message['list-unsubscribe-post']}"
    if not re.fullmatch(rf"<[a-z2-7]{{32}}@{re.escape(case['domain'])}>", str(message["message-id"])):
        yield f"message-id {message['message-id']}"
    if message["date"].datetime.isoformat() != "2026-09-21T14:13:20+00:00":
        yield f"date {message['date']}"
    yield from body_faults(message, case)


def named_twice(part, name, value):
    """A file name stands there in ASCII, and once more by RFC 2231 for those who know it. Python calls that a duplicate."""
    plain = re.findall(r"filename=", value.fold(policy=POLICY)) if name.lower() == "content-disposition" else []
    return len(plain) >= 1 and all("duplicate parameter name" in str(defect) for defect in value.defects)


def file_name(part):
    """The file name for those who know RFC 2231: the parts of `filename*`, and only without them `filename`."""
    raw = next(value for name, value in part.raw_items() if name.lower() == "content-disposition")
    pieces = re.findall(r"filename(?:\*\d+)?\*=([^;\r\n]*)", raw)
    if not pieces:
        return part.get_filename()
    ascii_name = re.search(r'filename="([^"\r\n]*)"', raw)
    if not ascii_name or not ascii_name[1].isascii():
        return None
    charset, _, encoded = "".join(pieces).split("'", 2)
    return email.utils.unquote(urllib.parse.unquote(encoded, charset, "strict"))


def shown_name(value):
    """The display name, by the older decoder: the newer one keeps the space between two encoded words
    of a name (RFC 2047 6.2 says that it is not shown)."""
    names = [name for name, _ in email.utils.getaddresses([re.sub(r"\r\n", "", value)])]
    return str(email.header.make_header(email.header.decode_header(names[0])))


def body_faults(message, case):
    inline = [a for a in case["attachments"] if a.get("content_id")]
    files = [a for a in case["attachments"] if not a.get("content_id")]
    containers = ["multipart/mixed"] * bool(files) + ["multipart/related"] * bool(inline)
    texts = ["text/plain"] if case["html"] is None else ["multipart/alternative", "text/plain", "text/html"]
    kinds = containers + texts + [a["content_type"].partition(";")[0] for a in inline + files]
    found = list(message.walk())
    if [part.get_content_type() for part in found] != kinds:
        yield f"parts {[part.get_content_type() for part in found]} instead of {kinds}"
        return
    leaves = [part for part in found if not part.is_multipart()]
    n_texts = 1 if case["html"] is None else 2
    parts = leaves[:n_texts]
    for part, wanted in zip(leaves[n_texts:], inline + files):
        # Python drops quotes and angle brackets that stand round a whole value, whoever wrote them.
        if file_name(part) != email.utils.unquote(wanted["filename"]):
            yield f"file name {file_name(part)!r} instead of {wanted['filename']!r}"
        if part.get_payload(decode=True) != base64.b64decode(wanted["content"]):
            yield f"the content of {wanted['filename']!r} is another"
        cid = wanted.get("content_id")
        if part.get_content_disposition() != ("inline" if cid else "attachment"):
            yield f"disposition {part.get_content_disposition()}"
        if part["content-id"] != (f"<{cid}>" if cid else None):
            yield f"content id {part['content-id']}"
    for part, wanted in zip(parts, [case["text"], case["html"]]):
        if part.get_content_charset() != "utf-8":
            yield f"charset {part.get_content_charset()}"
        if lines(part.get_payload(decode=True).decode("utf-8")) != lines(wanted):
            yield f"{part.get_content_type()} {part.get_content()!r} instead of {wanted!r}"


def lines(text):
    """Lines as RFC 5322 knows them; those that are empty at the end do not count."""
    return re.sub(r"\r\n|\r", "\n", text).rstrip("\n").split("\n")


def main():
    wrong = messages = 0
    for line in sys.stdin.buffer:
        _, expected, message = line.split(b"\t")
        messages += 1
        found = list(faults(json.loads(expected), base64.b64decode(message)))
        if found:
            wrong += 1
            if wrong <= 10:
                print(f"message {messages}: {found}")
    print(f"{messages} messages, {wrong} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
