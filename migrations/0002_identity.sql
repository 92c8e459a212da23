-- Identity: what accounts, sessions and second factors need beyond the first migration, and retries in the outbox.
-- A previous release goes on working beside it: new columns have defaults, and none of its statements changes meaning.

-- Addresses with letters of other scripts that look like Latin ones are kept apart from their twins by what they look
-- like; null for addresses in ASCII, which are their own key.
ALTER TABLE users ADD COLUMN email_key text;
CREATE UNIQUE INDEX users_email_twins ON users ((COALESCE(email_key, email)));

ALTER TABLE auth_sessions
    ADD COLUMN last_used_at timestamptz,
    -- When each generation before the last was replaced, newest first: what the grace of a refresh token is read from.
    ADD COLUMN earlier_rotations timestamptz[] NOT NULL DEFAULT '{}',
    -- When the person last proved to be here (password or one-time code), for what is dangerous.
    ADD COLUMN proved_at timestamptz;
CREATE INDEX auth_sessions_expires ON auth_sessions (expires_at);
CREATE INDEX auth_sessions_revoked ON auth_sessions (revoked_at) WHERE revoked_at IS NOT NULL;

-- One row a letter with a link. The token is in the letter only; here is its digest. `id` is that of the durable event
-- that asked for the letter, so a letter that is sent again holds the same token.
CREATE TABLE auth_letters (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    purpose text NOT NULL CHECK (purpose IN ('verify', 'reset', 'change')),
    email text NOT NULL,
    token_hash bytea NOT NULL UNIQUE,
    code_attempts smallint NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at timestamptz
);
CREATE INDEX auth_letters_user ON auth_letters (user_id, purpose, created_at);
CREATE INDEX auth_letters_expires ON auth_letters (expires_at);

-- Second factors. The secret is sealed with a key of the settings; `last_step` is the last time step a code was used for.
CREATE TABLE auth_totp (
    user_id uuid PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    secret bytea NOT NULL,
    created_at timestamptz NOT NULL,
    confirmed_at timestamptz,
    last_step bigint NOT NULL DEFAULT 0,
    failures integer NOT NULL DEFAULT 0,
    failed_at timestamptz
);

CREATE TABLE auth_recovery_codes (
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    code_hash bytea NOT NULL,
    used_at timestamptz,
    PRIMARY KEY (user_id, code_hash)
);

-- Retries: `next_at` is when a row is due (a worker pushes it ahead while it works: its lease), `done` names consumers
-- that have had the event, `dead_at` says that it was given up.
ALTER TABLE outbox
    ADD COLUMN attempts integer NOT NULL DEFAULT 0,
    ADD COLUMN next_at timestamptz NOT NULL DEFAULT now(),
    ADD COLUMN done text[] NOT NULL DEFAULT '{}',
    ADD COLUMN last_error text,
    ADD COLUMN dead_at timestamptz;
CREATE INDEX outbox_due ON outbox (next_at) WHERE dead_at IS NULL;
