"""The default under one condition after the other: momentum, batch, wrong labels, length, depth."""
