"""Asset storage: the part of the Blob protocol that clients upload with, over files kept by content."""
