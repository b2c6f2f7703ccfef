"""Azure Resource Manager at the edge: ids, bodies and envelopes, and the documents they stand for. Pure."""
