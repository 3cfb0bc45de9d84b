-- Names are compared case-folded (Unicode, full case folding): of the letters that names may have, only the final sigma and
-- the sharp s differ from their lower-case form. The name itself stays as it was chosen. Instances of the version before
-- keep comparing the name letter by letter.
ALTER TABLE users
  ADD COLUMN folded_name text NOT NULL GENERATED ALWAYS AS (replace(replace(username, 'ς', 'σ'), 'ß', 'ss')) STORED;
CREATE INDEX users_folded_name ON users (folded_name);
