-- The constraints of the migration before, over the rows that were there already. Nobody is blocked meanwhile.
ALTER TABLE payments VALIDATE CONSTRAINT payments_refunded_within_amount;
ALTER TABLE transfers VALIDATE CONSTRAINT transfers_known_kind;
ALTER TABLE transfers VALIDATE CONSTRAINT transfers_of_payments;
