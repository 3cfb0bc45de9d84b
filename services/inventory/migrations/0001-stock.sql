-- Items and their stock, reservations, the history of the stock, and the answers to repeatable requests.

-- The line of history that an item's row and the row of stock_changes share. It is drawn while the
-- item is locked, so the ids of one item rise in the order of its changes.
CREATE SEQUENCE stock_change_ids AS bigint CACHE 1;

CREATE TABLE items (
  -- Compared by bytes, so that every instance and every reader sorts alike.
  sku            text COLLATE "C" PRIMARY KEY CHECK (sku ~ '^[A-Z0-9][A-Z0-9._-]{0,63}$'),
  name           text NOT NULL CHECK (char_length(name) BETWEEN 1 AND 200),
  price_minor    bigint NOT NULL CHECK (price_minor > 0),
  currency_code  text NOT NULL CHECK (currency_code ~ '^[A-Z]{3}$'),
  on_hand        bigint NOT NULL CHECK (on_hand <= 1000000000000),
  reserved       bigint NOT NULL DEFAULT 0,
  create_time    timestamptz NOT NULL,
  -- The latest change of the stock.
  change_id      bigint NOT NULL,
  change_time    timestamptz NOT NULL,
  CONSTRAINT items_never_oversold CHECK (0 <= reserved AND reserved <= on_hand)
)
-- Stock columns are in no index: with room on the page an update need not touch any.
WITH (fillfactor = 80);

CREATE TABLE reservations (
  reservation_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  owner          text NOT NULL,
  state          text NOT NULL DEFAULT 'ACTIVE' CHECK (state IN ('ACTIVE', 'COMMITTED', 'RELEASED', 'EXPIRED')),
  create_time    timestamptz NOT NULL,
  expire_time    timestamptz NOT NULL CHECK (expire_time > create_time),
  end_time       timestamptz,
  CHECK ((state = 'ACTIVE') = (end_time IS NULL))
);

-- What the sweepers look for.
CREATE INDEX reservations_to_expire ON reservations (expire_time) WHERE state = 'ACTIVE';

CREATE TABLE reservation_lines (
  reservation_id uuid NOT NULL REFERENCES reservations,
  line_number    smallint NOT NULL CHECK (line_number BETWEEN 1 AND 50),
  sku            text COLLATE "C" NOT NULL REFERENCES items,
  quantity       bigint NOT NULL CHECK (quantity BETWEEN 1 AND 1000000),
  -- The price of the moment of reservation.
  price_minor    bigint NOT NULL CHECK (price_minor > 0),
  currency_code  text NOT NULL CHECK (currency_code ~ '^[A-Z]{3}$'),
  PRIMARY KEY (reservation_id, line_number),
  UNIQUE (reservation_id, sku)
);

-- Every change of every item's stock; rows are only ever added.
CREATE TABLE stock_changes (
  change_id      bigint PRIMARY KEY,
  sku            text COLLATE "C" NOT NULL REFERENCES items,
  kind           text NOT NULL
                 CHECK (kind IN ('CREATED', 'ADJUSTED', 'RESERVED', 'COMMITTED', 'RELEASED', 'EXPIRED')),
  on_hand_delta  bigint NOT NULL,
  reserved_delta bigint NOT NULL,
  -- As they were right after the change.
  on_hand        bigint NOT NULL,
  reserved       bigint NOT NULL,
  reason         text NOT NULL,
  -- Null when nobody asked for it, as when a reservation runs out.
  actor          text,
  reservation_id uuid REFERENCES reservations,
  change_time    timestamptz NOT NULL,
  CHECK (0 <= reserved AND reserved <= on_hand)
);

-- The history of one item.
CREATE UNIQUE INDEX stock_changes_of_item ON stock_changes (sku, change_id);

-- What must never be, one row for each breach: an operator runs SELECT * FROM stock_breaches.
CREATE VIEW stock_breaches (breach, subject) AS
  SELECT 'reserved differs from the lines of active reservations', i.sku
    FROM items i
    LEFT JOIN (
      SELECT l.sku, sum(l.quantity) AS quantity
        FROM reservation_lines l JOIN reservations r USING (reservation_id)
       WHERE r.state = 'ACTIVE' GROUP BY l.sku
    ) held ON held.sku = i.sku
   WHERE i.reserved <> coalesce(held.quantity, 0)
  UNION ALL
  SELECT 'stock differs from the sum of its history', i.sku
    FROM items i
    LEFT JOIN (
      SELECT sku, sum(on_hand_delta) AS on_hand, sum(reserved_delta) AS reserved, max(change_id) AS change_id
        FROM stock_changes GROUP BY sku
    ) history ON history.sku = i.sku
   WHERE (i.on_hand, i.reserved, i.change_id)
         IS DISTINCT FROM (history.on_hand, history.reserved, history.change_id)
  UNION ALL
  SELECT 'a reservation was not ended exactly once by its history', r.reservation_id::text
    FROM reservations r
    JOIN reservation_lines l USING (reservation_id)
    LEFT JOIN stock_changes c
      ON c.reservation_id = r.reservation_id AND c.sku = l.sku AND c.kind <> 'RESERVED'
   GROUP BY r.reservation_id, r.state, l.sku
  HAVING count(c.change_id) <> CASE WHEN r.state = 'ACTIVE' THEN 0 ELSE 1 END
      OR coalesce(min(c.kind), r.state) <> r.state;

-- The first answer to every request that its caller may send again.
CREATE TABLE requests (
  subject      text NOT NULL,
  method       text NOT NULL,
  request_id   text NOT NULL,
  payload_hash bytea NOT NULL,
  answer       bytea NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (subject, method, request_id)
);

CREATE INDEX requests_created_at ON requests (created_at);
