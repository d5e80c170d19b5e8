"""OpenAI-compatible servers: what generation and judges share of asking one."""
