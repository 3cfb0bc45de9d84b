-- Validates the constraints of the previous migration for existing rows. It blocks no writer.
ALTER TABLE requests VALIDATE CONSTRAINT requests_have_one_answer;
ALTER TABLE payments VALIDATE CONSTRAINT payments_have_one_first_answer;
