-- Whether an instance follows an epoch that this database has never had: then it was restored, or has lost transactions.

-- Every epoch stands in epochs, the first one too, which no operator has opened. A database in which others were opened
-- since knows the first one by its keys and entries.
INSERT INTO epochs (epoch, open_time, reason, actor)
SELECT epoch, clock_timestamp(), 'the first epoch', ''
FROM (SELECT epoch FROM log_state UNION SELECT epoch FROM signing_keys UNION SELECT epoch FROM revocation_entries) AS known
ON CONFLICT (epoch) DO NOTHING;

-- Epochs that instances have followed and this database does not know. Once another epoch has been opened than the one under
-- which that was found, they are over: whatever was lost, nothing of before counts any more.
CREATE TABLE lost_epochs (
  epoch       bytea PRIMARY KEY CHECK (octet_length(epoch) = 16),
  -- The epoch that was the present one when it was found.
  found_under bytea NOT NULL CHECK (octet_length(found_under) = 16),
  find_time   timestamptz NOT NULL
);
CREATE INDEX lost_epochs_found_under ON lost_epochs (found_under, find_time);
