-- Refunds and cancellations, first answers of checkouts, and where an invariant does not hold.
--
-- Runs while instances of the version before serve: nothing here is read or required by them, and constraints over
-- rows that are there already are validated by the next migration, which blocks nobody.

ALTER TABLE payments
  ADD COLUMN refunded bigint NOT NULL DEFAULT 0,
  -- What the request was answered when the payment was captured.
  ADD COLUMN first_answer bytea,
  ADD CONSTRAINT payments_refunded_within_amount
    CHECK (refunded >= 0 AND refunded <= coalesce(amount, 0) AND (refunded = 0 OR step = 'captured')) NOT VALID;

ALTER TABLE transfers
  ADD COLUMN reason text NOT NULL DEFAULT '',
  DROP CONSTRAINT transfers_kind_check,
  DROP CONSTRAINT transfers_check,
  ADD CONSTRAINT transfers_known_kind CHECK (kind IN ('DEPOSIT', 'CAPTURE', 'REFUND')) NOT VALID,
  ADD CONSTRAINT transfers_of_payments CHECK ((kind <> 'DEPOSIT') = (payment_id IS NOT NULL)) NOT VALID;

-- One row for each thing that must always be true, with how often it is not, and where, for one of them:
-- `SELECT * FROM invariants`.
CREATE OR REPLACE VIEW invariants AS
SELECT 'every transfer has two entries or more and sums to zero' AS invariant, count(*) AS breaches,
    min(transfer_id::text) AS example
  FROM (
    SELECT transfer_id FROM transfers LEFT JOIN entries USING (transfer_id)
      GROUP BY transfer_id, currency_code HAVING count(entry_id) < 2 OR sum(amount) <> 0
  ) AS breach
UNION ALL
SELECT 'all entries of a currency sum to zero', count(*), min(currency_code)
  FROM (SELECT currency_code FROM entries GROUP BY currency_code HAVING sum(amount) <> 0) AS breach
UNION ALL
SELECT 'a balance is the sum of its entries', count(*), min(account_id::text)
  FROM accounts
  LEFT JOIN (SELECT account_id, sum(amount) AS total FROM entries GROUP BY account_id) AS ledger USING (account_id)
  WHERE kind = 'USER' AND balance <> coalesce(total, 0)
UNION ALL
SELECT 'what is held is the sum of the holds', count(*), min(account_id::text)
  FROM accounts
  LEFT JOIN (SELECT account_id, sum(amount) AS total FROM holds GROUP BY account_id) AS kept USING (account_id)
  WHERE kind = 'USER' AND held <> coalesce(total, 0)
UNION ALL
SELECT 'no account is overdrawn', count(*), min(account_id::text)
  FROM accounts WHERE kind = 'USER' AND (held < 0 OR held > balance)
UNION ALL
SELECT 'a hold belongs to a payment that is held or committing, and each of those has one', count(*),
    min(payment_id::text)
  FROM holds
  FULL JOIN (SELECT * FROM payments WHERE step IN ('held', 'committing')) AS waiting USING (payment_id)
  WHERE holds.amount IS DISTINCT FROM waiting.amount OR holds.account_id IS DISTINCT FROM waiting.account_id
UNION ALL
SELECT 'a captured payment has taken its amount once, and no other payment has taken any', count(*),
    min(payment_id::text)
  FROM (SELECT * FROM payments WHERE step = 'captured') AS captured
  FULL JOIN (
    SELECT payment_id, account_id, -sum(amount) AS taken
      FROM transfers JOIN entries USING (transfer_id) JOIN accounts USING (account_id)
      WHERE transfers.kind = 'CAPTURE' AND accounts.kind = 'USER'
      GROUP BY payment_id, account_id
  ) AS taking USING (payment_id)
  WHERE captured.amount IS DISTINCT FROM taking.taken OR captured.account_id IS DISTINCT FROM taking.account_id
UNION ALL
SELECT 'what is refunded of a payment is the sum of its refunds, and at most what was taken', count(*),
    min(payment_id::text)
  FROM (SELECT * FROM payments WHERE refunded <> 0) AS reversed
  FULL JOIN (
    SELECT payment_id, account_id, sum(amount) AS returned
      FROM transfers JOIN entries USING (transfer_id) JOIN accounts USING (account_id)
      WHERE transfers.kind = 'REFUND' AND accounts.kind = 'USER'
      GROUP BY payment_id, account_id
  ) AS returns USING (payment_id)
  WHERE reversed.refunded IS DISTINCT FROM returns.returned
    OR reversed.account_id IS DISTINCT FROM returns.account_id OR reversed.refunded > reversed.amount
UNION ALL
SELECT 'no payment is under way for more than ten minutes', count(*), min(payment_id::text)
  FROM payments
  WHERE step NOT IN ('captured', 'failed') AND create_time < clock_timestamp() - interval '10 minutes';
