"""What `resolve_all` answers with, by the names of 1Password's SDK; plain classes, where there it is pydantic."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Generic, TypeVar

from ..errors import InvalidRequest, ValetkeyError

__all__ = [
    "ResolveAllResponse",
    "ResolveReferenceError",
    "ResolveReferenceErrorTypes",
    "ResolvedReference",
    "Response",
]

T = TypeVar("T")
E = TypeVar("E")


class ResolveReferenceErrorTypes(str, Enum):
    """Why a reference was not resolved."""

    PARSING = "parsing"
    FIELD_NOT_FOUND = "fieldNotFound"
    VAULT_NOT_FOUND = "vaultNotFound"
    TOO_MANY_VAULTS = "tooManyVaults"
    ITEM_NOT_FOUND = "itemNotFound"
    TOO_MANY_ITEMS = "tooManyItems"
    TOO_MANY_MATCHING_FIELDS = "tooManyMatchingFields"
    NO_MATCHING_SECTIONS = "noMatchingSections"
    INCOMPATIBLE_TOTP_QUERY_PARAMETER_FIELD = "incompatibleTOTPQueryParameterField"
    UNABLE_TO_GENERATE_TOTP_CODE = "unableToGenerateTotpCode"
    S_SH_KEY_METADATA_NOT_FOUND = "sSHKeyMetadataNotFound"
    UNSUPPORTED_FILE_FORMAT = "unsupportedFileFormat"
    INCOMPATIBLE_SSH_KEY_QUERY_PARAMETER_FIELD = "incompatibleSshKeyQueryParameterField"
    UNABLE_TO_PARSE_PRIVATE_KEY = "unableToParsePrivateKey"
    UNABLE_TO_FORMAT_PRIVATE_KEY_TO_OPEN_SSH = "unableToFormatPrivateKeyToOpenSsh"
    OTHER = "other"


@dataclass(frozen=True)
class ResolveReferenceError:
    """Why a reference was not resolved. `reason` is the broker's own code, such as `ACCESS_DENIED`."""

    type: ResolveReferenceErrorTypes
    message: str
    reason: str

    @classmethod
    def of(cls, error: ValetkeyError) -> ResolveReferenceError:
        kind = KINDS.get(error.reason, ResolveReferenceErrorTypes.OTHER)
        if error.reason == "AMBIGUOUS_REFERENCE":
            kind = next((kind for words, kind in AMBIGUOUS if words in str(error)), kind)
        if isinstance(error, InvalidRequest):
            kind = ResolveReferenceErrorTypes.PARSING
        return cls(kind, str(error), error.reason)


@dataclass(frozen=True)
class ResolvedReference:
    """A value. Its `repr` does not show it. The broker does not tell an agent by which ids: those are empty."""

    secret: str = field(repr=False)
    item_id: str = ""
    vault_id: str = ""


@dataclass(frozen=True)
class Response(Generic[T, E]):
    """One or the other."""

    content: T | None = None
    error: E | None = None


@dataclass(frozen=True)
class ResolveAllResponse:
    """What came of each reference."""

    individual_responses: dict[str, Response[ResolvedReference, ResolveReferenceError]]


KINDS = {
    "FIELD_NOT_FOUND": ResolveReferenceErrorTypes.FIELD_NOT_FOUND,
    "VAULT_NOT_FOUND": ResolveReferenceErrorTypes.VAULT_NOT_FOUND,
    "ITEM_NOT_FOUND": ResolveReferenceErrorTypes.ITEM_NOT_FOUND,
    "ITEM_NOT_ACTIVE": ResolveReferenceErrorTypes.ITEM_NOT_FOUND,
    "SECTION_NOT_FOUND": ResolveReferenceErrorTypes.NO_MATCHING_SECTIONS,
    "AMBIGUOUS_REFERENCE": ResolveReferenceErrorTypes.TOO_MANY_MATCHING_FIELDS,
    "FIELD_NOT_OTP": ResolveReferenceErrorTypes.INCOMPATIBLE_TOTP_QUERY_PARAMETER_FIELD,
    "OTP_SEED_MALFORMED": ResolveReferenceErrorTypes.UNABLE_TO_GENERATE_TOTP_CODE,
    "FIELD_NOT_PRIVATE_KEY": ResolveReferenceErrorTypes.INCOMPATIBLE_SSH_KEY_QUERY_PARAMETER_FIELD,
    "PRIVATE_KEY_MALFORMED": ResolveReferenceErrorTypes.UNABLE_TO_PARSE_PRIVATE_KEY,
    "FILE_NOT_TEXT": ResolveReferenceErrorTypes.UNSUPPORTED_FILE_FORMAT,
}
# One reason of the broker's, three of the SDK's: the text tells them apart.
AMBIGUOUS = (
    ("more than one vault", ResolveReferenceErrorTypes.TOO_MANY_VAULTS),
    ("more than one item", ResolveReferenceErrorTypes.TOO_MANY_ITEMS),
)
