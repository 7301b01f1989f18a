"""The page at ``/ui``: its files, which the gateway serves. See docs/page.md."""
