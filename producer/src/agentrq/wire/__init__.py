"""What crosses Redis: names, shapes, statuses, atomic steps. msgspec and the standard library only, no IO."""
