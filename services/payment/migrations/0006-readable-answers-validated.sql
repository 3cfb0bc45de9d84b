-- The constraints of the migration before, over the rows that were there already. Nobody is blocked meanwhile.
ALTER TABLE requests VALIDATE CONSTRAINT requests_have_one_answer;
ALTER TABLE payments VALIDATE CONSTRAINT payments_have_one_first_answer;
