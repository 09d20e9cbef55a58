#!/usr/bin/env bash
# Builds Dockerfile.cpu and runs the classic commands in the image. It needs no Docker engine, but Debian, root,
# buildah, debootstrap and 12 GB in $TMPDIR: the base image is made here, with Debian's Python for the official one.
# Dockerfile.gpu is not built, for its size: what differs in it is checked, and that its packages can be had.
set -euo pipefail
cd "$(dirname "$0")/.."

IMAGE=gpt-2
BANNER='======================================== SAMPLE 1 ========================================'
PROMPT='Model prompt >>> '

main() {
    [ "$(id -u)" = 0 ] || fail "root is needed to make the base image"
    type -P buildah debootstrap >/dev/null || fail "buildah or debootstrap is missing: apt-get install them"
    check_gpu_difference
    WORK=$(mktemp -d "${TMPDIR:-/var/tmp}/test_docker.XXXXXX")
    trap 'buildah rm --all >/dev/null 2>&1 || true; rm -rf --one-file-system "$WORK"' EXIT
    export TMPDIR=$WORK STORAGE_DRIVER=vfs
    step "base image"
    make_base_image
    step "Dockerfile.cpu"
    write_pip_settings
    logged buildah bud --isolation chroot --network host --pull-never "${volumes[@]}" --tag "$IMAGE" -f Dockerfile.cpu .
    echo "$IMAGE: $(buildah images --format '{{.Size}}' "$IMAGE")"
    container=$(buildah from --pull-never "$IMAGE")
    check_contents
    step "the native step"
    check_native_step
    step "generate_unconditional_samples.py, the model in the image"
    check_unconditional
    step "interactive_conditional_samples.py, the model in a volume"
    check_interactive
    step "packages of Dockerfile.gpu"
    check_gpu_packages
    step "all passed"
}

# Comments and empty lines may differ.
check_gpu_difference() {
    local others
    others=$(diff <(grep '^[^#]' Dockerfile.cpu) <(grep '^[^#]' Dockerfile.gpu) |
        grep '^[<>]' | grep -vE '^. (ARG TENSORFLOW=|ENV NVIDIA_)' || true)
    [ -z "$others" ] || fail "Dockerfile.gpu differs in more than TensorFlow and NVIDIA's variables: $others"
}

# Under the name that the Dockerfiles start from, which ends in the name of its Debian.
make_base_image() {
    local name mirrors base
    name=$(sed -n 's/^FROM //p' Dockerfile.cpu)
    mirrors=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' || true)
    [ -n "$mirrors" ] || fail "apt knows no Debian mirror: add one to its sources and run apt-get update"
    base=$(buildah from scratch)
    logged debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates \
        "${name##*-}" "$(buildah mount "$base")" "${mirrors%%$'\n'*}"
    buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$base"
    buildah commit --quiet --rm "$base" "$name" >/dev/null
}

# How this machine's pip reaches packages, as one pip.conf; and that, with the files and folders it names, as volumes.
write_pip_settings() {
    local keys='index-url|extra-index-url|find-links|no-index|trusted-host|proxy|cert|client-cert|default-timeout|timeout'
    local certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt} conf=$WORK/pip.conf word path
    { # the environment's settings override the files'; pip lists them first, as :env:
        echo "[global]"
        { python3 -m pip config list 2>/dev/null || true; } |
            sed -nE "s/^(:env:|global)\.($keys)='(.*)'$/\2 = \3/p" | sed 's/\\n/ /g' | sort -s -u -t= -k1,1
    } >"$conf"
    grep -q '^cert = ' "$conf" || [ ! -e "$certificates" ] || echo "cert = $certificates" >>"$conf"
    volumes=(--volume "$conf:/etc/pip.conf:ro")
    for word in $(sed 's/^[^=]*= *//' "$conf"); do
        path=${word#file://}
        path=${path%/simple} # an index names files that lie beside it
        [[ $path != /* || ! -e $path ]] || volumes+=(--volume "$path:$path:ro")
    done
}

check_contents() {
    in_image sh -euc 'test "$(id -u)" != 0; test "$PWD" = /gpt-2; test "$(command -v python3)" = /opt/venv/bin/python3
        test "$LANG" = C.UTF-8; test ! -e .git; test ! -e tests' || fail "the image is not as it should be"
}

# Text by the step that the image has compiled, also for a user whom the image does not know.
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
    logged in_image env PYTHONPATH=/tests python3 -c 'import pathlib, tiny
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

expect_in_output() {
    local found
    found=$(grep -aoF -- "$2" "$WORK/output" | wc -l || true)
    [ "$found" = "$1" ] || fail "the output should have $1 times '$2', not $found: $(cat "$WORK/output")"
}

# With the newest pip, since older ones download gigabytes to learn what the packages need.
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
