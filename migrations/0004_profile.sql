-- Profile: searching people by name, who shares a course with whom, and which events of the logs are whose.

-- A name without accents, so that "Yildiz" finds "Yıldız"; the extension that does it is not everywhere (0001).
-- Letters that Unicode does not take apart are named.
CREATE FUNCTION fold_name(name text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN translate(regexp_replace(normalize(name, NFKD), '[\u0300-\u036f]', '', 'g'), 'ıŁłØøĐđÆæ', 'iLlOoDdAa');

-- users.search_vector holds the e-mail address too, which others must not find out by guessing: they search this.
ALTER TABLE users ADD COLUMN name_vector tsvector
    GENERATED ALWAYS AS (to_tsvector('simple', fold_name(coalesce(profile_data ->> 'name', '')))) STORED;
CREATE INDEX users_name_search ON users USING gin (name_vector);

-- What the classroom tells profile, which it is built upon: everybody with whom somebody shares a course, once for each
-- such course, with the own role there.
CREATE VIEW classmates AS
    SELECT own.user_id, own.role, own.course_id, mate.user_id AS mate_id
    FROM course_members own JOIN course_members mate ON mate.course_id = own.course_id AND mate.user_id <> own.user_id;

-- What a person wrote, for an export and an erasure: without it each of them would read every log from end to end.
CREATE INDEX room_events_actor ON room_events (actor_id);
