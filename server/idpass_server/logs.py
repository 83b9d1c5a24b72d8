"""Structured log lines on standard error: JSON for programs, coloured text for a terminal.

Configured once, before the server exists. A line never holds a credential, a note's text or an
applicant's reference: calls are logged by method, code, reference, caller and duration.
"""

import json
import logging
import sys

import structlog


def configure(level: str = "info") -> None:
    """Args: level: the least severe level that is written."""
    processors: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if sys.stderr.isatty():
        processors.append(structlog.dev.ConsoleRenderer())
    else:
        processors += [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=json.dumps),
        ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
