"""scoredistill view: a page that shows a run, served on this machine alone."""

from __future__ import annotations

from scoredistill.cli.viewer.command import view

__all__ = ["view"]
