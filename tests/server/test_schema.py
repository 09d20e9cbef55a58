"""The API beside its own description: schemathesis makes up requests, right ones and wrong ones.

Slow: pytest -m slow tests/server/test_schema.py; SCHEMA_CASES sets how many for each path that takes a body, 1500 by
default, which makes more than 10,000 in all.
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
def test_every_answer_is_what_the_description_says(native_tiny_model, tmp_path):
    with serving({"tiny": native_tiny_model}, ServerOptions(most_tokens=200, patience=60), waiting=500) as url:
        ended = subprocess.run(
            [SCHEMATHESIS, "run", f"{url}/openapi.json", f"--checks={','.join(CHECKS)}", f"--max-examples={CASES}"]
            + ["--phases=examples,coverage,fuzzing", "--workers=4"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
    print(ended.stdout[ended.stdout.find("= SUMMARY") :])  # -s shows it
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-1000:]
