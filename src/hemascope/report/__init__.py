"""Saved results to pictures and pages: one self-contained HTML file a run, an audit or a map. Never imports torch.

The only user of matplotlib and jinja2, and both only when a page is made.
"""

from hemascope.report.embedding_map import render_map
from hemascope.report.records import RunRecords, load_records
from hemascope.report.render import render_comparison, render_report
from hemascope.report.render_audit import render_audit

__all__ = ["RunRecords", "load_records", "render_audit", "render_comparison", "render_map", "render_report"]
