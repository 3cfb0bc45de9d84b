/**
 * The limits that issuer and verifiers must agree on. This file imports nothing, so that code which knows no gRPC can
 * import it.
 */

/** `typ` of an access token (RFC 9068 §2.1). */
export const ACCESS_TOKEN_TYPE = 'at+jwt';

/** The algorithms of this issuer's signatures (RFC 7518 §3.1, RFC 8037 §3.1). Symmetric algorithms are never accepted. */
export const SIGNATURE_ALGORITHMS = ['EdDSA', 'ES256', 'RS256', 'PS256'] as const;

/** Minimum size of an RSA key, in bits (RFC 7518 §3.3, §3.5). */
export const RSA_BITS_MIN = 2048;

/** Maximum size of an RSA key, in bits. Verifying with a larger one takes too long (compare CVE-2023-29409). */
export const RSA_BITS_MAX = 8192;

/** Minimum RSA exponent. Exponents are odd (FIPS 186-5 §5.4). */
export const RSA_EXPONENT_MIN = 65_537n;

/** Maximum RSA exponent. A larger one would slow down every verification. */
export const RSA_EXPONENT_MAX = 4_294_967_295n;

/** Maximum lifetime of an access token (`exp` - `iat`), in seconds. Revocations are kept for at least this long. */
export const ACCESS_TOKEN_LIFETIME_MAX_SECONDS = 3600;

/** Maximum difference between two machines' wall clocks that verification tolerates, in seconds. */
export const CLOCK_SKEW_SECONDS = 5;

/** Maximum number of nested actors in one token (`act`, RFC 8693 §4.1). */
export const ACTOR_CHAIN_LENGTH_MAX = 4;

/** Maximum length of an access token, in characters. */
export const TOKEN_LENGTH_MAX = 8192;

/** Maximum length of a text claim, in UTF-16 code units. */
export const CLAIM_TEXT_LENGTH_MAX = 255;

/** Maximum number of members of a list claim, such as `aud`, `scope` or `roles`. */
export const CLAIM_LIST_LENGTH_MAX = 64;

/** Maximum number of claims of one other issuer by which its tokens can be revoked. */
export const REVOCABLE_CLAIMS_MAX = 8;

/** Maximum number of other issuers whose tokens are accepted. */
export const TRUSTED_ISSUERS_MAX = 32;

/** Minimum length of the HS256 secret of a legacy issuer, in bytes (RFC 7518 §3.2). */
export const LEGACY_SECRET_BYTES_MIN = 32;

/** Maximum number of usable keys in one key set. */
export const KEYS_MAX = 32;

/** Length of the identifiers of the revocation protocol (entries, epochs, instances), in bytes. */
export const ID_BYTES = 16;

/** Maximum number of acknowledgements in one sync request (`SyncRequest.seen`). */
export const ACKNOWLEDGEMENTS_MAX = 1000;

/**
 * Maximum number of entries after its position of which an instance compares the ids with the log (`SyncRequest.held_to`).
 * At 10,000 entries a second, this is six seconds without a sync.
 */
export const HELD_ENTRIES_MAX = 65_536;

/** Maximum length of a signed broadcast, in bytes. */
export const BROADCAST_BYTES_MAX = 1024 * 1024;
