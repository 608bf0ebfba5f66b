"""The settings of a worker whose provider ``codex`` is the pinned Codex, led to the scripted model."""

CODEX_SETTINGS = """
[providers.codex]
protocol = "jsonrpc"
command = ["%(codex)s", "app-server", "-c", "model_provider=\\"x\\"", "-c", "analytics.enabled=false", "-c",
  "model_providers.x={name=\\"x\\",base_url=\\"%(model)s/v1\\",wire_api=\\"responses\\",env_key=\\"KEY\\"}"]
env = { HOME = "%(home)s", KEY = "none" }
public_env = ["KEY"]
options = { model = "gpt-5" }
"""
