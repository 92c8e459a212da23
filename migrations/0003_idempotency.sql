-- Idempotency keys: who carries a request out, and its first answer, for a day (server/gateway/idempotency.py).
CREATE TABLE idempotency_keys (
    id bytea PRIMARY KEY,                 -- digest of actor, route and key
    actor_id uuid,                        -- null: not signed in; no foreign key, an erasure deletes the rows
    fingerprint bytea NOT NULL,           -- keyed digest of what was asked
    claim uuid NOT NULL,                  -- changes when somebody else takes an abandoned request over
    lease_until timestamptz NOT NULL,     -- until then nobody does
    committed boolean NOT NULL DEFAULT false,  -- set in the transaction of the effect
    status smallint,                      -- of the answer; null until it is known
    headers jsonb,
    body bytea,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);
CREATE INDEX idempotency_keys_actor ON idempotency_keys (actor_id);
