"""An issuer of people's tokens: a key of its own, the file that publishes it, and tokens that it signs (RS256)."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from pathlib import Path

ISSUER = "https://people.test"
EXPONENT = 65537
# Of a SHA-256 digest in PKCS #1 v1.5 (RFC 8017, section 9.2, note 1).
DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
SIZE = 256


class People:
    """Signs with a key that is made for the test: slow, and in constant time nowhere, so for nothing else."""

    def __init__(self, file: Path) -> None:
        one, other = prime(SIZE * 4), prime(SIZE * 4)
        self._modulus = one * other
        self._secret = pow(EXPONENT, -1, (one - 1) * (other - 1))
        key = {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "a"}
        size = (EXPONENT.bit_length() + 7) // 8
        key |= {"n": text(self._modulus.to_bytes(SIZE, "big")), "e": text(EXPONENT.to_bytes(size, "big"))}
        file.write_text(json.dumps({"keys": [key]}))
        self.settings = (
            f'[[issuer]]\nissuer = "{ISSUER}"\naudience = "valetkey"\njwks_file = "{file}"\n'
            'on_behalf_of = true\nrules = [{ person = "{sub}" }]\n'
        )

    def token(self, person: str, seconds: int = 600) -> str:
        now = int(time.time())
        claims = {"iss": ISSUER, "aud": "valetkey", "sub": person, "iat": min(now, now + seconds - 60)}
        claims["exp"] = now + seconds
        parts = ({"alg": "RS256", "typ": "JWT", "kid": "a"}, claims)
        signed = ".".join(text(json.dumps(part).encode()) for part in parts)
        return f"{signed}.{text(self._sign(signed.encode()))}"

    def _sign(self, content: bytes) -> bytes:
        info = DIGEST_INFO + hashlib.sha256(content).digest()
        padded = b"\x00\x01" + b"\xff" * (SIZE - len(info) - 3) + b"\x00" + info
        return pow(int.from_bytes(padded, "big"), self._secret, self._modulus).to_bytes(SIZE, "big")


def text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def prime(bits: int) -> int:
    """With both highest bits set, so that a product of two has all the bits that it should."""
    while True:
        number = secrets.randbits(bits) | 3 << (bits - 2) | 1
        if number % EXPONENT != 1 and all(number % small for small in SMALL) and is_prime(number):
            return number


def is_prime(number: int) -> bool:
    """As good as certain (Miller and Rabin)."""
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(10):
        power = pow(secrets.randbelow(number - 3) + 2, odd, number)
        if power in (1, number - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % number
            if power == number - 1:
                break
        else:
            return False
    return True


SMALL = [number for number in range(3, 2000) if all(number % other for other in range(2, int(number**0.5) + 1))]
