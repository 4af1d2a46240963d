"""A value of the vault, which does not show itself."""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["CONCEALED", "Secret"]

CONCEALED = "<concealed by valetkey>"


class Secret:
    """A plaintext. `expose` is the only way to it: it prints as `<concealed by valetkey>`, in logs and tracebacks
    too, and refuses to be pickled, copied or turned into JSON.

    Python cannot wipe a string from memory: keep the value no longer than its use.
    """

    __slots__ = ("__value",)

    def __init__(self, value: bytes) -> None:
        self.__value = value

    def expose(self) -> str:
        """The value as text.

        Raises `UnicodeDecodeError`, without the value, where it is none; `expose_bytes` has it then.
        """
        try:
            return self.__value.decode()
        except UnicodeDecodeError as error:
            # The original carries the whole value along.
            bad = UnicodeDecodeError(error.encoding, b"", error.start, error.end, "the value is no text")
            raise bad from None

    def expose_bytes(self) -> bytes:
        """The value, exactly as the vault holds it."""
        return self.__value

    def __repr__(self) -> str:
        return CONCEALED

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return CONCEALED

    def __bool__(self) -> bool:
        return bool(self.__value)

    def __setattr__(self, name: str, value: Any) -> None:
        if hasattr(self, "_Secret__value"):
            raise AttributeError("a secret does not change")
        object.__setattr__(self, name, value)

    def __refuse(self, *_: Any) -> NoReturn:
        raise TypeError("a secret is not copied, pickled or serialised; `expose` it where it is used")

    __copy__ = __deepcopy__ = __reduce__ = __reduce_ex__ = __getstate__ = __refuse
    __iter__ = __len__ = __bytes__ = __index__ = __refuse
