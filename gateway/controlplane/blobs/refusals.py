"""Every refusal that a client of the asset storage can get: Azure's code, the HTTP status and a sentence.

Clients branch on the code (header `x-ms-error-code`), so codes that Azure has are spelled as Azure spells them.
Source: Azure Storage, "Common REST API error codes" and "Blob service error codes".
"""

from __future__ import annotations

from enum import Enum


class Fault(Enum):
    """Code and status. Clients retry from 500 on, except 501, so only what may pass by itself has such a status."""

    INVALID_URI = ("InvalidUri", 400)
    INVALID_RESOURCE_NAME = ("InvalidResourceName", 400)
    INVALID_QUERY = ("InvalidQueryParameterValue", 400)
    UNSUPPORTED_QUERY = ("UnsupportedQueryParameter", 400)
    INVALID_HEADER = ("InvalidHeaderValue", 400)
    UNSUPPORTED_HEADER = ("UnsupportedHeader", 400)
    MISSING_HEADER = ("MissingRequiredHeader", 400)
    INVALID_METADATA = ("InvalidMetadata", 400)
    METADATA_TOO_LARGE = ("MetadataTooLarge", 400)
    INVALID_MD5 = ("InvalidMd5", 400)
    MD5_MISMATCH = ("Md5Mismatch", 400)
    INVALID_XML = ("InvalidXmlDocument", 400)
    INVALID_BLOCK_ID = ("InvalidBlockId", 400)
    INVALID_BLOCK_LIST = ("InvalidBlockList", 400)
    OUT_OF_RANGE = ("OutOfRangeInput", 400)
    NO_AUTHENTICATION = ("NoAuthenticationInformation", 401)
    AUTHENTICATION_FAILED = ("AuthenticationFailed", 403)
    PERMISSION_MISMATCH = ("AuthorizationPermissionMismatch", 403)
    BLOB_NOT_FOUND = ("BlobNotFound", 404)
    UNSUPPORTED_VERB = ("UnsupportedHttpVerb", 405)
    BLOB_EXISTS = ("BlobAlreadyExists", 409)
    CONTAINER_EXISTS = ("ContainerAlreadyExists", 409)
    TOO_MANY_BLOCKS = ("BlockCountExceedsLimit", 409)
    CONDITION_NOT_MET = ("ConditionNotMet", 412)
    TOO_LARGE = ("RequestBodyTooLarge", 413)
    QUOTA_EXCEEDED = ("StorageQuotaExceeded", 413)
    INVALID_RANGE = ("InvalidRange", 416)
    INTERNAL = ("InternalError", 500)
    NOT_IMPLEMENTED = ("NotImplemented", 501)
    SERVER_BUSY = ("ServerBusy", 503)
    NO_SPACE = ("InsufficientStorage", 507)

    def __init__(self, code: str, status: int) -> None:
        self.code = code
        self.status = status


class Refusal(Exception):
    """A request that gets an error. `headers` are added to the answer."""

    def __init__(self, fault: Fault, message: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.fault = fault
        self.message = message
        self.headers = headers


def not_found(container: str, path: str) -> Refusal:
    return Refusal(Fault.BLOB_NOT_FOUND, f"there is no blob {path!r} in the container {container!r}")
