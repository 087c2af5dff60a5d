"""Collections of pictures to records, and to the formats of labeling tools."""
