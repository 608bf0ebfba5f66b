"""Which worker owns which session: leases, claims, inboxes, and sessions whose owner was lost."""
