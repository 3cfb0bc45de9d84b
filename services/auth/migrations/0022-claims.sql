-- Revocations of other issuers' tokens by the value of a claim.

ALTER TABLE revocation_entries
  -- With CLAIM: the claim, as a JSON Pointer (RFC 6901). The key is the value.
  ADD COLUMN claim text NOT NULL DEFAULT '',
  DROP CONSTRAINT revocation_entries_kind_check,
  DROP CONSTRAINT revocation_entries_check1,
  DROP CONSTRAINT revocation_entries_check2,
  ADD CONSTRAINT revocation_entries_kind_check
    CHECK (kind IN ('TOKEN', 'SESSION', 'USER', 'CLIENT', 'KEY', 'CLAIM')),
  ADD CONSTRAINT revocation_entries_issuer_check
    CHECK (CASE WHEN issuer = '' THEN kind <> 'CLAIM' ELSE kind IN ('TOKEN', 'SESSION', 'USER', 'CLAIM') END),
  ADD CONSTRAINT revocation_entries_cut_off_check
    CHECK ((cut_off_time IS NOT NULL) = (issuer <> '' AND kind IN ('USER', 'CLAIM'))),
  ADD CONSTRAINT revocation_entries_claim_check CHECK ((claim <> '') = (kind = 'CLAIM'));

-- A token for which a claim was not read is compared with all values of the issuer.
CREATE INDEX revocation_entries_claims ON revocation_entries (issuer) WHERE kind = 'CLAIM';

-- What an instance can apply. Replicas of earlier versions leave the defaults.
ALTER TABLE instances
  -- The kinds of entries that it knows.
  ADD COLUMN kinds text[] NOT NULL DEFAULT '{}',
  -- The issuers that it trusts and the claims that it reads, 16 bytes each.
  ADD COLUMN claim_ids bytea NOT NULL DEFAULT '';
