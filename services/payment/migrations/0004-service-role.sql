-- The role with which the service works: it can write into the books and read them, and change nothing that is
-- written. Migrations run with another one, which owns the tables. An operator gives the role its login, or makes a
-- login a member of it; where it may not be created here, it has to be there already.
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'portcullis_payment') THEN
    CREATE ROLE portcullis_payment NOLOGIN;
  END IF;
EXCEPTION
  -- Another database of this server is migrated at the same moment.
  WHEN duplicate_object OR unique_violation THEN NULL;
END $$;

GRANT SELECT, INSERT ON accounts, payments, transfers, entries, holds, requests TO portcullis_payment;
-- Triggers of entries and holds move these two, with the rights of whoever writes; no other statement can.
GRANT UPDATE (balance, held) ON accounts TO portcullis_payment;
GRANT UPDATE ON payments TO portcullis_payment;
GRANT DELETE ON holds TO portcullis_payment;
GRANT SELECT ON invariants TO portcullis_payment;
-- A process without the owner's URL may serve a database that another one has migrated, and sees that it was.
GRANT SELECT ON schema_migrations TO portcullis_payment;
