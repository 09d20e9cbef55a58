#!/bin/sh
# Check that $PYTHON can create a virtual environment for TensorFlow. If it cannot, say what to type instead of the
# command `make $GOALS $OVERRIDES`: the same with a Python that works on this machine, or what to install.
set -u
VERSIONS="3.13 3.12 3.11 3.10" # the same as SUPPORTED in src/gpt2/installation.py, the newest first
OLDEST=${VERSIONS##* }
NEWEST=${VERSIONS%% *}

version_of() { # 3.12, or nothing if the command does not start a Python
    $1 -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

is_supported() {
    case " $VERSIONS " in *" $1 "*) return 0 ;; *) return 1 ;; esac
}

can_create_environments() {
    $1 -c 'import ensurepip, venv' 2>/dev/null
}

find_working() {
    for version in $VERSIONS ""; do
        command="python${version:-3}"
        # pyenv has commands for versions that it does not start.
        if is_supported "$(version_of "$command")" && can_create_environments "$command"; then
            echo "$command"
            return
        fi
    done
}

what_to_install() { # $1: the package of Debian and Ubuntu
    if command -v apt-get >/dev/null; then
        echo "type: apt install $1"
    elif command -v dnf >/dev/null; then
        echo "type: dnf install python3.12"
    elif command -v brew >/dev/null; then
        echo "type: brew install python@3.12"
    else
        echo "install Python 3.12 from https://www.python.org/downloads/"
    fi
}

package="python3 python3-venv"
version=$(version_of "$PYTHON")
if [ -z "$version" ]; then
    problem="$PYTHON is not a working Python interpreter"
elif ! is_supported "$version"; then
    problem="TensorFlow needs Python $OLDEST to $NEWEST, and $PYTHON is Python $version"
elif ! can_create_environments "$PYTHON"; then
    problem="$PYTHON cannot create virtual environments"
    package="python$version-venv"
else
    exit 0
fi
working=$(find_working)
if [ -n "$working" ]; then
    advice="type: make $GOALS PYTHON=$working${OVERRIDES:+ $OVERRIDES}"
else
    advice="$(what_to_install "$package")"
fi
printf 'error: %s; %s\n' "$problem" "$advice" >&2
exit 1
