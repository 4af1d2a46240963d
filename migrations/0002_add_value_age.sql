-- How old a value was when a handle for it was issued or it was released: reads may be shared and values
-- kept for a short while.
ALTER TABLE outcomes ADD COLUMN value_age_us INTEGER CHECK (value_age_us >= 0);
