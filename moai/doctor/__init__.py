"""Examine the installation for ``moai doctor``. Nothing heavy is imported in this process."""

from moai.doctor.report import Finding, Report, examine

__all__ = ["Finding", "Report", "examine"]
