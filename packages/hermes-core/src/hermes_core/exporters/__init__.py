"""Exporters: trajectories in other systems' formats."""

from hermes_core.exporters._protocol import Exporter, ExportReport

__all__ = ["ExportReport", "Exporter"]
