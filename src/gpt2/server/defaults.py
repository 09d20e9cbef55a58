"""What a server does unless it is told otherwise. Without packages: the command says it in its help."""

HOST, PORT = "127.0.0.1", 8000
ROWS, WAITING = 32, 64  # texts that are written at a time, and jobs that may wait for them, of each model
MOST_TOKENS = 4096  # new ones of a text
MOST_BODY = 1 << 20  # bytes of a request
PATIENCE, GRACE = 600.0, 30.0  # seconds for a request, and for what is being written when the server is stopped
