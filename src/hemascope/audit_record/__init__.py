"""An audit on disk: what was found, every score, the map, and small pictures of whatever the page shows.

layout.py  which files there are, and what each holds
save.py    an AuditReport to a folder
load.py    and back, every file checked before it is believed

Nothing here can run: no pickle. The ledger lies beside these files but is no part of them: people edit it.
"""

from hemascope.audit_record.layout import SHOWN, SIDE, SavedAudit, rows_shown
from hemascope.audit_record.load import load_audit
from hemascope.audit_record.save import save_audit

__all__ = ["SHOWN", "SIDE", "SavedAudit", "load_audit", "rows_shown", "save_audit"]
