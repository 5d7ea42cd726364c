"""The server of `taking_back.py`, which does whatever its settings say. It is known for nothing: nobody runs it."""

import sys
from pathlib import Path

from base import Server


class TakingBack(Server):
    name = "taking-back"
    needs_root = False

    def command(self) -> list[str]:
        script = Path(__file__).parent.parent / "taking_back.py"
        return [sys.executable, str(script), str(self.port), str(self.taken), *self.words]

    def version(self) -> str:
        return "ours"
