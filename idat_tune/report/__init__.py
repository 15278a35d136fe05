"""What came of searches as a page: one file that needs no network and no script."""
