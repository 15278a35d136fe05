"""The lean engine: every shortcut that makes a run faster and leaves its values as they are."""
