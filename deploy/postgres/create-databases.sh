#!/bin/sh
# Creates for each service a database and two roles: one owns the tables and runs migrations, the service works with the
# other. Neither is a superuser, and neither can connect to another database. Runs once, as a superuser:
#
#   PGHOST=… PGUSER=postgres CREDENTIALS=/run/secrets sh create-databases.sh
#
# CREDENTIALS is a folder with SERVICE-database-password and SERVICE-owner-database-password for auth, inventory and
# payment. As an init script of the postgres image it finds the variables of the image.
set -eu

credentials="${CREDENTIALS:-/run/secrets}"
export PGUSER="${PGUSER:-${POSTGRES_USER:-postgres}}"
export PGDATABASE="${PGDATABASE:-${POSTGRES_DB:-$PGUSER}}"

for service in auth inventory payment; do
  psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --set name="portcullis_$service" --set owner="portcullis_${service}_owner" \
    --set password_file="$credentials/$service-database-password" \
    --set owner_password_file="$credentials/$service-owner-database-password" <<'SQL'
-- Read here, and not by the shell, so that no password is an argument of a process.
\set password `cat :password_file`
\set owner_password `cat :owner_password_file`
SET password_encryption = 'scram-sha-256';
CREATE ROLE :"owner" LOGIN PASSWORD :'owner_password';
CREATE ROLE :"name" LOGIN PASSWORD :'password';
-- Creating a database for a role requires its membership, unless a superuser does it.
CREATE DATABASE :"name" OWNER :"owner";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
GRANT CONNECT ON DATABASE :"name" TO :"name";
\connect :"name"
-- Not for payment, whose migrations grant what its role needs.
SELECT :'name' <> 'portcullis_payment' AS all_rows \gset
\if :all_rows
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"name";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO :"name";
\endif
SQL
done
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --command 'REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC'
