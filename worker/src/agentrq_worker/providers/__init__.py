"""How each provider's agent is driven and read: pure state machines, without any IO."""
