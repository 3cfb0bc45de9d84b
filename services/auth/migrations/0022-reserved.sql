-- Nothing. The number keeps the order of migrations that were written at the same time.
SELECT 1;
