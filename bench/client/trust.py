"""Whom a client trusts: a TLS context from --ca, --insecure or the system's authorities.

Errors: CannotMeasure for a file that holds no certificates.
"""

from __future__ import annotations

import ssl

from bench.client.errors import CannotMeasure


def client_context(ca: str, insecure: bool) -> ssl.SSLContext:
    if not ca:
        context = ssl.create_default_context()
        if insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context
    try:
        return ssl.create_default_context(cafile=ca)
    except FileNotFoundError:
        raise CannotMeasure(f"--ca: there is no file {ca}; a gateway prints its own as ca=FILE when ready") from None
    except (ssl.SSLError, OSError) as error:
        raise CannotMeasure(f"--ca: {ca} holds no certificates in PEM form ({error})") from None
