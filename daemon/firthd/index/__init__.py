"""What the house does with the records of a source, whatever their family: read, compare, own, sum up, render."""
