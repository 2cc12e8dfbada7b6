"""Saved results to pictures and pages: one self-contained HTML file a run. Never imports torch.

The only user of matplotlib and jinja2, and both only when a page is made.
"""

from hemascope.report.records import RunRecords, load_records
from hemascope.report.render import render_comparison, render_report

__all__ = ["RunRecords", "load_records", "render_comparison", "render_report"]
