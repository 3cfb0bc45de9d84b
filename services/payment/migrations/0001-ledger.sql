-- The books: accounts, an append-only double-entry ledger, payments and what they hold.

CREATE TABLE accounts (
  account_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  -- USER: somebody's money. WORLD: where deposits come from. SALES: where captured money goes.
  kind text NOT NULL CHECK (kind IN ('USER', 'WORLD', 'SALES')),
  user_id text CHECK (user_id <> ''),
  currency_code text NOT NULL CHECK (currency_code ~ '^[A-Z]{3}$'),
  -- Kept for users alone: a row that every purchase of a currency updates would make all of them wait for
  -- one another, so what WORLD and SALES come to is summed from the entries by those who ask.
  balance bigint,
  held bigint,
  create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  UNIQUE (account_id, currency_code),
  CONSTRAINT accounts_users_have_balances CHECK (
    (kind = 'USER' AND user_id IS NOT NULL AND balance IS NOT NULL AND held IS NOT NULL)
    OR (kind <> 'USER' AND user_id IS NULL AND balance IS NULL AND held IS NULL)
  ),
  CONSTRAINT accounts_never_negative CHECK (held >= 0 AND held <= balance)
);

CREATE UNIQUE INDEX accounts_one_per_user_and_currency ON accounts (user_id, currency_code) WHERE kind = 'USER';
CREATE UNIQUE INDEX accounts_one_per_kind_and_currency ON accounts (kind, currency_code) WHERE kind <> 'USER';

CREATE TABLE payments (
  payment_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  sequence bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
  user_id text NOT NULL,
  account_id uuid NOT NULL,
  currency_code text NOT NULL,
  request_id text NOT NULL CHECK (char_length(request_id) BETWEEN 1 AND 255),
  payload_hash bytea NOT NULL,
  lines jsonb NOT NULL,
  -- The step that is taken next, written down before it is taken; `captured` and `failed` are the ends.
  step text NOT NULL DEFAULT 'reserving'
    CHECK (step IN ('reserving', 'reserved', 'held', 'committing', 'undoing', 'captured', 'failed')),
  state text NOT NULL GENERATED ALWAYS AS (
    CASE step WHEN 'captured' THEN 'CAPTURED' WHEN 'failed' THEN 'FAILED' ELSE 'PENDING' END
  ) STORED,
  amount bigint CHECK (amount > 0),
  reservation_id text,
  failure_reason text,
  failure_message text,
  failure_violations jsonb,
  -- A failure that says nothing about the order itself leaves its request_id free for another try.
  retriable boolean NOT NULL DEFAULT false,
  -- On whose word the money moves: ids only, never a token.
  client_id text NOT NULL,
  session_id text,
  token_id text NOT NULL,
  allowed_time timestamptz,
  -- Who works on it, and until when nobody else may.
  worker uuid NOT NULL,
  lease_until timestamptz NOT NULL,
  create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  update_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  FOREIGN KEY (account_id, currency_code) REFERENCES accounts (account_id, currency_code),
  CONSTRAINT payments_priced_before_held CHECK (
    step NOT IN ('held', 'committing', 'captured') OR (amount IS NOT NULL AND reservation_id IS NOT NULL)
  ),
  CONSTRAINT payments_allowed_before_committed CHECK (
    step NOT IN ('committing', 'captured') OR allowed_time IS NOT NULL
  ),
  CONSTRAINT payments_failed_for_a_reason CHECK ((step IN ('undoing', 'failed')) = (failure_reason IS NOT NULL)),
  CONSTRAINT payments_retriable_when_failing CHECK (NOT retriable OR step IN ('undoing', 'failed'))
);

-- While an undo is under way its request_id is still taken.
CREATE UNIQUE INDEX payments_one_per_request ON payments (user_id, request_id)
  WHERE NOT (retriable AND step = 'failed');
CREATE INDEX payments_by_request ON payments (user_id, request_id);
CREATE INDEX payments_newest_first ON payments (user_id, sequence DESC);
CREATE INDEX payments_unfinished ON payments (lease_until) WHERE step NOT IN ('captured', 'failed');

CREATE TABLE transfers (
  transfer_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  kind text NOT NULL CHECK (kind IN ('DEPOSIT', 'CAPTURE')),
  payment_id uuid REFERENCES payments (payment_id),
  -- The user on whose call it was written.
  actor_id text NOT NULL,
  create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  CHECK ((kind = 'CAPTURE') = (payment_id IS NOT NULL))
);

CREATE UNIQUE INDEX transfers_one_capture_per_payment ON transfers (payment_id) WHERE kind = 'CAPTURE';

CREATE TABLE entries (
  entry_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  sequence bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
  transfer_id uuid NOT NULL REFERENCES transfers (transfer_id),
  account_id uuid NOT NULL,
  currency_code text NOT NULL,
  amount bigint NOT NULL CHECK (amount <> 0),
  create_time timestamptz NOT NULL DEFAULT clock_timestamp(),
  FOREIGN KEY (account_id, currency_code) REFERENCES accounts (account_id, currency_code)
);

CREATE INDEX entries_by_transfer ON entries (transfer_id);
CREATE INDEX entries_newest_first ON entries (account_id, sequence DESC);

-- What payments under way keep from being spent: one row each, gone when the payment ends.
CREATE TABLE holds (
  payment_id uuid PRIMARY KEY REFERENCES payments (payment_id),
  account_id uuid NOT NULL REFERENCES accounts (account_id),
  amount bigint NOT NULL CHECK (amount > 0),
  create_time timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE INDEX holds_by_account ON holds (account_id);

-- First answers of OpenAccount and Deposit. They stay as long as the ledger does: forgetting one would let a very
-- late retry move the money again.
CREATE TABLE requests (
  subject text NOT NULL,
  method text NOT NULL,
  request_id text NOT NULL,
  payload_hash bytea NOT NULL,
  answer bytea NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (subject, method, request_id)
);

-- Every transfer has at least two entries and sums to zero in each currency, at the latest when it commits.
CREATE FUNCTION check_transfer_balances() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (SELECT count(*) FROM entries WHERE transfer_id = NEW.transfer_id) < 2
    OR EXISTS (
      SELECT FROM entries WHERE transfer_id = NEW.transfer_id GROUP BY currency_code HAVING sum(amount) <> 0
    )
  THEN
    RAISE EXCEPTION 'transfer % does not balance', NEW.transfer_id USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER transfers_balance AFTER INSERT ON transfers
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_transfer_balances();
CREATE CONSTRAINT TRIGGER entries_balance AFTER INSERT ON entries
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION check_transfer_balances();

-- Balances and held sums move by these triggers and by nothing else.
CREATE FUNCTION apply_entry_to_balance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE accounts SET balance = balance + NEW.amount WHERE account_id = NEW.account_id AND kind = 'USER';
  RETURN NULL;
END $$;

CREATE TRIGGER entries_move_balances AFTER INSERT ON entries
  FOR EACH ROW EXECUTE FUNCTION apply_entry_to_balance();

CREATE FUNCTION apply_hold_to_held() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    UPDATE accounts SET held = held + NEW.amount WHERE account_id = NEW.account_id;
  ELSE
    UPDATE accounts SET held = held - OLD.amount WHERE account_id = OLD.account_id;
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER holds_move_held AFTER INSERT OR DELETE ON holds
  FOR EACH ROW EXECUTE FUNCTION apply_hold_to_held();

CREATE FUNCTION guard_account() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    IF NEW.balance <> 0 OR NEW.held <> 0 THEN
      RAISE EXCEPTION 'an account opens empty' USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
  END IF;
  -- Depth 1 is a statement sent by a client; the triggers of entries and holds are deeper.
  IF pg_trigger_depth() = 1 THEN
    RAISE EXCEPTION 'accounts change through entries and holds alone' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$;

CREATE TRIGGER accounts_follow_the_ledger BEFORE INSERT OR UPDATE ON accounts
  FOR EACH ROW EXECUTE FUNCTION guard_account();

-- What is written stays written.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% of % is refused: its rows stay as they were written', TG_OP, TG_TABLE_NAME
    USING ERRCODE = 'integrity_constraint_violation';
END $$;

CREATE TRIGGER entries_append_only BEFORE UPDATE OR DELETE ON entries
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER entries_not_truncated BEFORE TRUNCATE ON entries
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER transfers_append_only BEFORE UPDATE OR DELETE ON transfers
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER transfers_not_truncated BEFORE TRUNCATE ON transfers
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER accounts_stay BEFORE DELETE ON accounts
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER accounts_not_truncated BEFORE TRUNCATE ON accounts
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER payments_stay BEFORE DELETE ON payments
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER payments_not_truncated BEFORE TRUNCATE ON payments
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER holds_not_changed BEFORE UPDATE ON holds
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER holds_not_truncated BEFORE TRUNCATE ON holds
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The second lock on the same door. A superuser passes it, but not the triggers. UPDATE of transfers stays
-- granted because a foreign key locks the row it points at, which PostgreSQL counts as an update.
REVOKE UPDATE, DELETE, TRUNCATE ON entries FROM PUBLIC, CURRENT_USER;
REVOKE DELETE, TRUNCATE ON transfers FROM PUBLIC, CURRENT_USER;

-- One row for each thing that must always be true, with how often it is not: `SELECT * FROM invariants`.
CREATE VIEW invariants AS
SELECT 'every transfer has two entries or more and sums to zero' AS invariant, count(*) AS breaches
  FROM (
    SELECT FROM transfers LEFT JOIN entries USING (transfer_id)
      GROUP BY transfer_id, currency_code HAVING count(entry_id) < 2 OR sum(amount) <> 0
  ) AS breach
UNION ALL
SELECT 'all entries of a currency sum to zero', count(*)
  FROM (SELECT FROM entries GROUP BY currency_code HAVING sum(amount) <> 0) AS breach
UNION ALL
SELECT 'a balance is the sum of its entries', count(*)
  FROM accounts
  LEFT JOIN (SELECT account_id, sum(amount) AS total FROM entries GROUP BY account_id) AS ledger USING (account_id)
  WHERE kind = 'USER' AND balance <> coalesce(total, 0)
UNION ALL
SELECT 'what is held is the sum of the holds', count(*)
  FROM accounts
  LEFT JOIN (SELECT account_id, sum(amount) AS total FROM holds GROUP BY account_id) AS kept USING (account_id)
  WHERE kind = 'USER' AND held <> coalesce(total, 0)
UNION ALL
SELECT 'no account is overdrawn', count(*)
  FROM accounts WHERE kind = 'USER' AND (held < 0 OR held > balance)
UNION ALL
SELECT 'a hold belongs to a payment that is held or committing, and each of those has one', count(*)
  FROM holds
  FULL JOIN (SELECT * FROM payments WHERE step IN ('held', 'committing')) AS waiting USING (payment_id)
  WHERE holds.amount IS DISTINCT FROM waiting.amount OR holds.account_id IS DISTINCT FROM waiting.account_id
UNION ALL
SELECT 'a captured payment has taken its amount once, and no other payment has taken any', count(*)
  FROM (SELECT * FROM payments WHERE step = 'captured') AS captured
  FULL JOIN (
    SELECT payment_id, account_id, -sum(amount) AS taken
      FROM transfers JOIN entries USING (transfer_id) JOIN accounts USING (account_id)
      WHERE transfers.kind = 'CAPTURE' AND accounts.kind = 'USER'
      GROUP BY payment_id, account_id
  ) AS taking USING (payment_id)
  WHERE captured.amount IS DISTINCT FROM taking.taken OR captured.account_id IS DISTINCT FROM taking.account_id;
