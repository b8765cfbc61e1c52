"""What goes wrong with a bulk job as a whole; a single bad file is never an error, but reported.

MstkdClientError
└── BulkError           a worker broke, or its work is not where it must be
    ├── SourceError     the folder or list of files cannot be used
    ├── OutputError     the output cannot or must not be written
    ├── JobMismatch     the work under way belongs to another source, model or detector
    └── JobLocked       another process works on the same output
"""
# ruff: noqa: N818 - the names say what happened; the base alone carries the suffix

from mstkd_client._errors import MstkdClientError


class BulkError(MstkdClientError):
    """Base of the errors of a bulk job."""


class SourceError(BulkError):
    """The folder or list of files cannot be used, or holds no image."""


class OutputError(BulkError):
    """The output, or the work folder beside it, cannot or must not be written."""


class JobMismatch(BulkError):
    """The work under way was begun with another source, model or detector."""


class JobLocked(BulkError):
    """Another process works on the same output."""
