-- First answers to requests and checkouts become JSON (docs/decisions/0031). Instances of the version before go on
-- writing `answer` and `first_answer`, and what they have written is read from there for as long as it is kept.
ALTER TABLE requests
  ALTER COLUMN answer DROP NOT NULL,
  ADD COLUMN answer_json json,
  ADD CONSTRAINT requests_have_one_answer CHECK (num_nonnulls(answer, answer_json) = 1) NOT VALID;
ALTER TABLE payments
  ADD COLUMN first_answer_json json,
  ADD CONSTRAINT payments_have_one_first_answer CHECK (num_nonnulls(first_answer, first_answer_json) <= 1) NOT VALID;
