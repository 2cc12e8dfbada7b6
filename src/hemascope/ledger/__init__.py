"""The ledger: what an audit found, and what a person decided about it, in two files a person can read and edit.

rows.py   the types; deciding, and carrying decisions from one audit to the next
files.py  ledger.csv and ledger.json
"""

from hemascope.ledger.files import previous_ledger, read_ledger, write_ledger
from hemascope.ledger.rows import Ledger, LedgerRow, decide, from_findings, merge, parse_decision

__all__ = [
    "Ledger",
    "LedgerRow",
    "decide",
    "from_findings",
    "merge",
    "parse_decision",
    "previous_ledger",
    "read_ledger",
    "write_ledger",
]
