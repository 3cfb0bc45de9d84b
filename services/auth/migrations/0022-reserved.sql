-- Nothing. A migration that was written at the same time takes this number, and the place of this file.
SELECT 1;
