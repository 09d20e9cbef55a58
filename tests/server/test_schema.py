"""The API compared with its own description: schemathesis generates valid and invalid requests.

Slow: pytest -m slow tests/server/test_schema.py; SCHEMA_CASES is the number of requests for each path that takes a
body, 1500 by default, more than 10,000 in all.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from served import serving

from gpt2.server.app import ServerOptions

SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
CASES = int(os.environ.get("SCHEMA_CASES", "1500"))
CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")


@pytest.mark.slow
@pytest.mark.skipif(not SCHEMATHESIS.exists(), reason="pip install schemathesis")
def test_every_response_matches_the_description(native_tiny_model, tmp_path):
    with serving({"tiny": native_tiny_model}, ServerOptions(max_tokens=200, timeout=60), queue_size=500) as url:
        process = subprocess.run(
            [SCHEMATHESIS, "run", f"{url}/openapi.json", f"--checks={','.join(CHECKS)}", f"--max-examples={CASES}"]
            + ["--phases=examples,coverage,fuzzing", "--workers=4"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
    print(process.stdout[process.stdout.find("= SUMMARY") :])  # -s shows it
    assert process.returncode == 0, process.stdout[-3000:] + process.stderr[-1000:]
