-- The fence against revoked work of instances that lag behind: see FENCE_TABLE of @portcullis/guard.
CREATE TABLE revocation_fence (
  one          boolean PRIMARY KEY DEFAULT true CHECK (one),
  fence_id     uuid NOT NULL DEFAULT gen_random_uuid(),
  epoch_number bigint NOT NULL DEFAULT 0,
  sequence     bigint NOT NULL DEFAULT 0
);
INSERT INTO revocation_fence DEFAULT VALUES;
GRANT SELECT, UPDATE ON revocation_fence TO portcullis_payment;
