-- Idempotency keys: the first answer of a POST, kept for a day.
SELECT 1;
