"""Everything that knows onnxruntime: providers, metadata, external data and sessions. Nothing else imports it."""
