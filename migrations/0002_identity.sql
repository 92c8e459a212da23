-- Identity: what accounts, sessions and second factors need beyond the first migration.
SELECT 1;
