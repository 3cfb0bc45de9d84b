-- First answers to requests become JSON (docs/decisions/0031). Instances of the version before go on writing `answer`,
-- and what they have written is read from there until it is forgotten, after seven days.
ALTER TABLE requests
  ALTER COLUMN answer DROP NOT NULL,
  ADD COLUMN answer_json json,
  ADD CONSTRAINT requests_have_one_answer CHECK (num_nonnulls(answer, answer_json) = 1);
