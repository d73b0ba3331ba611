"""Who was given which result, when, from which image and model: an append-only log that shows any change.

>>> log = AuditLog(Path("audit.jsonl"))
>>> log.append([Entry("result", actor="ris", subject="3f2a...", verdict="accept")])
>>> verify(Path("audit.jsonl")).ok
"""

from __future__ import annotations

from dermseg.audit.log import AuditLog, Receipt
from dermseg.audit.record import AuditError, Entry, image_mark, read_key, verdict_of
from dermseg.audit.verify import Verification, verify

__all__ = [
    "AuditError",
    "AuditLog",
    "Entry",
    "Receipt",
    "Verification",
    "image_mark",
    "read_key",
    "verdict_of",
    "verify",
]
