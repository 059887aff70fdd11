"""Where other libraries have the loop: callbacks for them, each its package's only importer."""
