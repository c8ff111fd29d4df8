"""Use that did not come through the gateway: reported, priced, charged, proved."""
