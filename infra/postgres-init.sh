#!/bin/sh
# Run once by the Postgres image on an empty volume: a role and a database for each service, closed to other roles.
set -eu

make_database() {
    psql --no-psqlrc --quiet -v ON_ERROR_STOP=1 -v name="$1" -v password="$2" \
        --username "$POSTGRES_USER" --dbname postgres <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
SQL
}

make_database dagster "$DAGSTER_POSTGRES_PASSWORD"
make_database mlflow "$MLFLOW_POSTGRES_PASSWORD"
