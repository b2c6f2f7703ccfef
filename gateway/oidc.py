"""Tokens of an OpenID Connect issuer: its public keys fetched, kept and rotated; tokens verified with them.

Shared by both planes: who may score (dataplane/authenticate.py), and people who manage (controlplane/people.py).
Only `refresh` touches the network; `verify` and `prove` are plain computing. A token whose key is not known raises
KeysNeeded, and only after everything else about it has been checked, so that a stranger cannot cause a fetch with
garbage. The door then awaits `refresh` once and verifies again.
Keys are looked up by (key id, algorithm), and each was prepared for exactly that algorithm: a key never meets an
algorithm of another kind, and symmetric keys are not taken at all.
Bounds: one fetch at a time and one in `fetch_interval_ns`; 5 s and 1 MiB a fetch; no redirect is followed; http only
for an issuer on this machine. Keys older than an hour are fetched again in the background at the next use, and served
meanwhile; a failed fetch keeps the old ones.
Units: *_ns monotonic nanoseconds, *_s seconds since 1970.
Errors: TokenRefused (401), RoleMissing (403), KeysNeeded, and ValueError for settings that can never work.
Source: OpenID Connect Discovery 1.0, RFC 7517, RFC 8725.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import jwt

from gateway.credentials import (
    TokenRefused,
    Unverified,
    check_audience,
    check_issuer,
    check_times,
    read_token,
    unauthenticated,
    verify_signature,
)
from gateway.errors import Code, Problem, retry_after
from gateway.jwks import (
    ALGORITHMS,
    FETCH_S,
    KEY_ID,
    FetchFailed,
    Keys,
    check_url,
    fetch_keys,
    read_keys,
)
from gateway.snapshot import OidcSpec
from runtimes import now_ns

if TYPE_CHECKING:
    import httpx

_log = logging.getLogger(__name__)

STALE_NS = 3600 * 10**9
FETCH_INTERVAL_NS = 10 * 10**9
# What an issuer answers may be quoted in the log, but not at any length.
_WHY_LENGTH_MAX = 500


class RoleMissing(Exception):
    """The token is genuine, and has none of the roles that the endpoint asks for."""


class KeysNeeded(Problem):
    """The token may be good, but its key is not here yet: await `refresh` once, then authenticate again.

    A door that cannot wait, or has waited, lets it pass: it is the right answer as it stands. That is 401 when the
    issuer's keys are known and this one is not among them, and 503 when no key could ever be fetched.
    """

    def __init__(self, *, has_keys: bool) -> None:
        if has_keys:
            same = unauthenticated()
            super().__init__(same.code, same.message, headers=same.headers, reason=same.reason)
            return
        super().__init__(
            Code.UNAVAILABLE,
            "the keys of this endpoint's token issuer could not be fetched yet; try again later",
            headers=(retry_after(FETCH_INTERVAL_NS / 1e9),),
            reason="auth",
        )


class OidcVerifier:
    """One issuer's keys, and the rules for its tokens. Used by one event loop."""

    def __init__(
        self,
        spec: OidcSpec,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], int] = now_ns,
        fetch_interval_ns: int = FETCH_INTERVAL_NS,
    ) -> None:
        check_spec(spec)
        self._spec = spec
        self._transport = transport
        self._clock = clock
        self._fetch_interval_ns = fetch_interval_ns
        self._keys: Keys = {}
        self._document: dict[str, Any] = {}
        self._fetched_ns = 0
        self._attempted_ns: int | None = None
        self._fetching: asyncio.Task[None] | None = None
        # Counts changes of the key set: what was verified under another generation must be verified again.
        self.generation = 0

    def __repr__(self) -> str:
        return f"<OidcVerifier {self._spec.issuer}, {len(self._keys)} keys>"

    def verify(self, token: bytes, now_s: float) -> float:
        """The second from which the token counts as expired."""
        claims, good_until_s = self.prove(token, now_s)
        self._check_roles(claims)
        return good_until_s

    def prove(self, token: bytes, now_s: float) -> tuple[dict[str, Any], float]:
        """The claims of a genuine token, whatever its roles, and the second from which it counts as expired."""
        unverified = read_token(token)
        if unverified.algorithm not in self._spec.algorithms:
            raise TokenRefused("the token's algorithm is not among those accepted")
        check_issuer(unverified.claims, self._spec.issuer)
        check_audience(unverified.claims, self._spec.audience)
        good_until_s = check_times(unverified.claims, now_s)
        verify_signature(token, self._key_for(unverified), unverified.algorithm)
        return unverified.claims, good_until_s

    def refresh_if_stale(self) -> None:
        """Starts a fetch in the background when the keys are old. Called at every use: it looks at the clock."""
        if self._keys and self._clock() - self._fetched_ns > STALE_NS and self._may_fetch():
            self._start_fetch()

    async def refresh(self) -> None:
        """Fetches the keys, or waits for the fetch under way. A failure is logged, and the old keys stay."""
        if self._fetching is None and not self._may_fetch():
            return
        # `wait` leaves the fetch alone when this caller hangs up: others wait for it too.
        await asyncio.wait([self._fetching or self._start_fetch()])

    async def close(self) -> None:
        """Ends a fetch under way."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])
        # A fetch that was ended before its first step could not say so itself.
        self._fetching = None

    def _key_for(self, unverified: Unverified) -> jwt.PyJWK:
        if unverified.key_id is None:
            return self._only_key(unverified.algorithm)
        if not KEY_ID.fullmatch(unverified.key_id):
            raise TokenRefused("the token's kid is not a plain name")
        key = self._keys.get((unverified.key_id, unverified.algorithm))
        if key is not None:
            return key
        raise self._no_key()

    def _only_key(self, algorithm: str) -> jwt.PyJWK:
        """A token may leave out its kid where there is no choice."""
        fitting = [key for (_, made_for), key in self._keys.items() if made_for == algorithm]
        if len(fitting) == 1:
            return fitting[0]
        if not self._keys:
            raise self._no_key()
        raise TokenRefused("the token has no kid, and the issuer does not have exactly one key")

    def _no_key(self) -> Exception:
        # While no fetch may start, waiting would not help: the answer is final. Before any key is known it is 503.
        if self._keys and not self._may_fetch() and self._fetching is None:
            return TokenRefused("the issuer has no such key")
        return KeysNeeded(has_keys=bool(self._keys))

    def _check_roles(self, claims: dict[str, Any]) -> None:
        wanted = self._spec.required_roles
        if wanted and not (words_of(claims.get("roles")) | words_of(claims.get("scp"))).intersection(wanted):
            raise RoleMissing

    def _may_fetch(self) -> bool:
        if self._fetching is not None:
            return False
        return self._attempted_ns is None or self._clock() - self._attempted_ns >= self._fetch_interval_ns

    def _start_fetch(self) -> asyncio.Task[None]:
        self._attempted_ns = self._clock()
        self._fetching = asyncio.get_running_loop().create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_S):
                document = await fetch_keys(self._spec, self._transport)
            self._adopt(document)
        except (FetchFailed, OSError, ValueError) as error:
            # OSError and ValueError: the time is up, or the environment names a bad proxy or CA file.
            why = str(error)[:_WHY_LENGTH_MAX] or f"no answer within {FETCH_S:g} s"
            issuer, kept = self._spec.issuer, len(self._keys)
            _log.warning("fetching the keys of issuer %s failed, %d are kept: %s", issuer, kept, why)
        finally:
            self._fetching = None

    def _adopt(self, document: dict[str, Any]) -> None:
        if document != self._document:
            self._keys = read_keys(document, self._spec.algorithms)
            self._document = document
            self.generation += 1
            _log.info("issuer %s has keys %s", self._spec.issuer, sorted({name for name, _ in self._keys}))
        self._fetched_ns = self._clock()


def words_of(claim: Any) -> set[str]:
    """`roles` is a list (or one name), `scp` is words with spaces between; anything else is no role."""
    if isinstance(claim, str):
        return set(claim.split())
    return {word for word in claim if isinstance(word, str)} if isinstance(claim, list) else set()


def check_spec(spec: OidcSpec) -> None:
    """ValueError for an issuer, address or algorithm that can never be accepted."""
    if not spec.audience:
        raise ValueError("the audience is empty; tokens for anybody would be accepted")
    unknown = [name for name in spec.algorithms if name not in ALGORITHMS]
    if unknown or not spec.algorithms:
        raise ValueError(f"the algorithms {list(spec.algorithms)} are not some of {', '.join(ALGORITHMS)}")
    check_url(spec.issuer, may_be_plain=True)
    if spec.jwks_uri:
        check_url(spec.jwks_uri, may_be_plain=urlsplit(spec.issuer).scheme == "http")
