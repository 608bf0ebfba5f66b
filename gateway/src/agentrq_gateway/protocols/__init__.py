"""What front ends speak: Vercel AI SDK's UI message stream and AG-UI, as state machines over a session's events."""
