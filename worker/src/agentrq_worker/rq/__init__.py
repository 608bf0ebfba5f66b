"""Everything that touches RQ: dequeueing, jobs, their records, the registries. No other package imports rq."""
