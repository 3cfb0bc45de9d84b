-- What one user holds, which is limited.
CREATE INDEX reservations_active_of_owner ON reservations (owner) WHERE state = 'ACTIVE';
