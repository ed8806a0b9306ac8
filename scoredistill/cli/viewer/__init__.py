"""scoredistill view: serves a page about a run, for this machine only."""

from __future__ import annotations

from scoredistill.cli.viewer.command import view

__all__ = ["view"]
