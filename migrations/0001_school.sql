-- Users, login sessions, courses, members, rooms and the room log. Uses no extension: the embedded PostgreSQL has none.

-- The identity of this data: changes only when the log itself is replaced (a restore), and tells clients to start again.
CREATE TABLE installation (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    epoch text NOT NULL
);
INSERT INTO installation (epoch) VALUES (substr(replace(gen_random_uuid()::text, '-', ''), 1, 16));

CREATE TABLE users (
    id uuid PRIMARY KEY,
    email text NOT NULL UNIQUE CHECK (email = lower(email) AND length(email) <= 254),
    password_hash text NOT NULL,
    role text NOT NULL DEFAULT 'user' CHECK (role IN ('admin', 'user')),
    verified_at timestamptz,
    disabled_at timestamptz,
    profile_data jsonb NOT NULL DEFAULT '{}',
    preferences jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    search_vector tsvector GENERATED ALWAYS AS (
        to_tsvector('simple', email || ' ' || coalesce(profile_data ->> 'name', ''))
    ) STORED
);
CREATE INDEX users_search ON users USING gin (search_vector);

-- One row a login. A refresh token is derived from salt and generation, so nothing here can be presented as one.
CREATE TABLE auth_sessions (
    id uuid PRIMARY KEY,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    salt bytea NOT NULL,
    generation integer NOT NULL DEFAULT 1,
    rotated_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    revoked_why text,
    device text NOT NULL DEFAULT '',
    ip text NOT NULL DEFAULT ''
);
CREATE INDEX auth_sessions_user ON auth_sessions (user_id);

CREATE TABLE courses (
    id uuid PRIMARY KEY,
    title text NOT NULL,
    description text NOT NULL DEFAULT '',
    join_code text NOT NULL UNIQUE,
    created_by uuid NOT NULL REFERENCES users,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE course_members (
    course_id uuid NOT NULL REFERENCES courses ON DELETE CASCADE,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    role text NOT NULL CHECK (role IN ('owner', 'instructor', 'assistant', 'learner', 'observer')),
    joined_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (course_id, user_id)
);
CREATE INDEX course_members_user ON course_members (user_id);

-- last_seq and state belong to the room log (server/realtime/log.py); the other columns to the classroom.
CREATE TABLE rooms (
    id uuid PRIMARY KEY,
    course_id uuid REFERENCES courses ON DELETE CASCADE,
    name text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('class', 'lounge', 'group', 'direct')),
    created_by uuid NOT NULL REFERENCES users,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    last_seq bigint NOT NULL DEFAULT 0,
    state json NOT NULL DEFAULT '{}',
    CHECK ((course_id IS NULL) = (kind IN ('group', 'direct')))
) WITH (fillfactor = 70);  -- last_seq changes with every batch: room on the page keeps those updates heap-only
CREATE INDEX rooms_course ON rooms (course_id);

CREATE TABLE room_members (
    room_id uuid NOT NULL REFERENCES rooms ON DELETE CASCADE,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    role text NOT NULL CHECK (role IN ('owner', 'learner')),
    joined_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (room_id, user_id)
);
CREATE INDEX room_members_user ON room_members (user_id);

-- The log. body is the event as it is sent, from "type" on: json, not jsonb, so that its bytes never change.
-- No foreign keys: the rooms row is locked by every writer, and each key would cost a look-up per event.
CREATE TABLE room_events (
    room_id uuid NOT NULL,
    seq bigint NOT NULL,
    type text NOT NULL,
    actor_id uuid,
    at timestamptz NOT NULL,
    body json NOT NULL,
    PRIMARY KEY (room_id, seq)
);

-- Receipts: what a cmd_id did. Also where a message is found by its id, which is the cmd_id of its command.
CREATE TABLE cmd_ids (
    room_id uuid NOT NULL,
    cmd_id uuid NOT NULL,
    actor_id uuid NOT NULL,
    command text NOT NULL,
    fingerprint bytea NOT NULL,
    seq bigint NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (room_id, cmd_id, actor_id)
);

-- How far a person has read; only ever moves forward.
CREATE TABLE read_marks (
    room_id uuid NOT NULL REFERENCES rooms ON DELETE CASCADE,
    user_id uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    seq bigint NOT NULL,
    PRIMARY KEY (user_id, room_id)
);

-- Durable events: written in the business transaction, relayed afterwards (server/outbox.py).
CREATE TABLE outbox (
    id uuid PRIMARY KEY,
    event text NOT NULL,
    data jsonb NOT NULL,
    trace_id text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX outbox_created ON outbox (created_at);
