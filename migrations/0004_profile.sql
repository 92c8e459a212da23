-- Profile: what people tell of themselves.
SELECT 1;
