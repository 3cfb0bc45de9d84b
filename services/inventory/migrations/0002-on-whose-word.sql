-- On whose word reservations are made and ended, and what must always be true in the form that every service has.

-- The service that acted for the owner when the reservation was made; null when the owner came by itself. That
-- service alone may end the reservation in its own name.
ALTER TABLE reservations ADD COLUMN acting_client text;

ALTER TABLE stock_changes
  -- The service that acted for the actor, or in its own name on the actor's word.
  ADD COLUMN acting_client text,
  -- In the second case: the token with which the actor had given its word.
  ADD COLUMN authorising_token text;

-- The history stays as it was written.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% of % is refused: its rows stay as they were written', TG_OP, TG_TABLE_NAME
    USING ERRCODE = 'integrity_constraint_violation';
END $$;

CREATE TRIGGER stock_changes_append_only BEFORE UPDATE OR DELETE ON stock_changes
  FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER stock_changes_not_truncated BEFORE TRUNCATE ON stock_changes
  FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- One row for each thing that must always be true, with how often it is not, and where, for one of them:
-- `SELECT * FROM invariants`.
DROP VIEW stock_breaches;
CREATE VIEW invariants AS
SELECT 'no item is negative or oversold' AS invariant, count(*) AS breaches, min(sku) AS example
  FROM items WHERE NOT (0 <= reserved AND reserved <= on_hand)
UNION ALL
SELECT 'what is reserved is the sum of the active reservations', count(*), min(sku)
  FROM items
  LEFT JOIN (
    SELECT sku, sum(quantity) AS quantity
      FROM reservation_lines JOIN reservations USING (reservation_id)
      WHERE state = 'ACTIVE' GROUP BY sku
  ) AS kept USING (sku)
  WHERE reserved <> coalesce(quantity, 0)
UNION ALL
SELECT 'the stock is the sum of its history', count(*), min(sku)
  FROM items
  LEFT JOIN (
    SELECT sku, sum(on_hand_delta) AS on_hand, sum(reserved_delta) AS reserved, max(change_id) AS change_id
      FROM stock_changes GROUP BY sku
  ) AS history USING (sku)
  WHERE (items.on_hand, items.reserved, items.change_id)
    IS DISTINCT FROM (history.on_hand, history.reserved, history.change_id)
UNION ALL
SELECT 'every line of the history follows from the one before it', count(*), min(sku)
  FROM (
    SELECT sku, on_hand, reserved, on_hand_delta, reserved_delta,
        lag(on_hand, 1, 0::bigint) OVER earlier AS on_hand_before,
        lag(reserved, 1, 0::bigint) OVER earlier AS reserved_before
      FROM stock_changes WINDOW earlier AS (PARTITION BY sku ORDER BY change_id)
  ) AS line
  WHERE on_hand <> on_hand_before + on_hand_delta OR reserved <> reserved_before + reserved_delta
UNION ALL
SELECT 'every reservation is made once and ended at most once, as its state says', count(*), min(reservation_id::text)
  FROM (
    SELECT reservation_id
      FROM reservations
      JOIN reservation_lines USING (reservation_id)
      LEFT JOIN stock_changes USING (reservation_id, sku)
      GROUP BY reservation_id, state, sku, quantity
      HAVING count(*) FILTER (WHERE kind = 'RESERVED' AND reserved_delta = quantity) <> 1
        OR count(*) FILTER (WHERE kind <> 'RESERVED') <> CASE WHEN state = 'ACTIVE' THEN 0 ELSE 1 END
        OR count(*) FILTER (
          WHERE kind = state AND reserved_delta = -quantity
            AND on_hand_delta = CASE WHEN state = 'COMMITTED' THEN -quantity ELSE 0 END
        ) <> CASE WHEN state = 'ACTIVE' THEN 0 ELSE 1 END
  ) AS breach
UNION ALL
SELECT 'no reservation outlives its time by more than a minute', count(*), min(reservation_id::text)
  FROM reservations WHERE state = 'ACTIVE' AND expire_time < clock_timestamp() - interval '1 minute';
