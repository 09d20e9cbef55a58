"""Default settings of the server. This module imports nothing, because `--help` shows the values."""

HOST = "127.0.0.1"
PORT = 8000
BATCH_SIZE = 32  # texts of one model that are generated at the same time
QUEUE_SIZE = 64  # requests for one model that may wait
MAX_TOKENS = 4096  # new tokens of one text
MAX_BODY_BYTES = 1 << 20
TIMEOUT_SECONDS = 600.0  # for one request
GRACE_SECONDS = 30.0  # for running requests, when the server is stopped
