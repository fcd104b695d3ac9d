"""Why a connection could not be made, in words for people."""

from __future__ import annotations

import os
import ssl


def why(error: OSError) -> str:
    """A clause: "connection refused", "no answer in time"."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed ({error.reason or error})"
    if error.errno is not None and error.errno > 0:  # asyncio's own text names the address once more
        return os.strerror(error.errno).lower()
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (error.strerror or str(error) or type(error).__name__).lower()
