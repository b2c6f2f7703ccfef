"""Codecs: bytes into tensors that fit a model's signature, and its answers back into bytes. One module a format.

`decode_score` reads what is posted to a scoring URI: Azure-style JSON (azureml.py), or V2 where the binary header is
given or the JSON says so. `decode_v2` reads `/v2/models/.../infer` (oip.py). The answer goes back in the format of
the request: `Decoded.encode`.
Errors: InvalidInput, one sentence that says what was found and what would be accepted.
"""

from __future__ import annotations

from gateway.dataplane.codecs import azureml, buffers, documents, oip
from gateway.dataplane.codecs.wire import Decoded, Encoded
from runtimes import Signature

__all__ = ["Decoded", "Encoded", "decode_score", "decode_v2"]


def decode_score(
    body: bytes, header_length: int | None, signature: Signature, model_name: str, model_version: str
) -> Decoded:
    """A body posted to `/score`. `header_length` is Inference-Header-Content-Length, None where it is not given."""
    if header_length is not None:
        return oip.decode(body, header_length, signature, model_name, model_version)
    if len(body) >= buffers.BYTES_MIN and (cut := buffers.cut(body)) is not None:
        if "inputs" in cut.rest:
            quick: Decoded | None = oip.decode_cut(cut, signature, model_name, model_version)
        else:
            quick = azureml.decode_cut(cut, signature)
        if quick is not None:
            return quick
    document = documents.parse(body)
    if type(document) is dict and "inputs" in document and oip.is_request(document):
        head = {"model_name": model_name, "model_version": model_version}
        return oip.decode_document(document, body, body, signature, head)
    return azureml.decode(document, body, signature)


def decode_v2(
    body: bytes, header_length: int | None, signature: Signature, model_name: str, model_version: str
) -> Decoded:
    """A body posted to a V2 infer route."""
    return oip.decode(body, header_length, signature, model_name, model_version)
