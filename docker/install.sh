#!/bin/sh
# How does Karyon get into an image? The steps that the Dockerfiles and `make image-steps` share.
#
#   install.sh dependencies SOURCE EXTRAS VENV [CONSTRAINTS]   what pyproject.toml asks for, at constraints.txt's versions
#   install.sh app SOURCE VENV TARGET                          the wheel, the kernels compiled, the model proven
#
# Dependencies and application lie apart, so that a new version of Karyon is a small layer upon the same big one.
# SOURCE holds a checkout. PYTHON makes the virtual environment and PIP fills it: the result holds no pip.
set -eu

PYTHON=${PYTHON:-python3}
PIP=${PIP:-pip}

into() {
    there=$1
    shift
    $PIP --python "$there/bin/python" install -q --no-cache-dir --disable-pip-version-check --root-user-action=ignore "$@"
}

# The dependencies of extras, one a line.
requirements() {
    "$PYTHON" - "$1/pyproject.toml" "$2" <<'END'
import sys
import tomllib

with open(sys.argv[1], "rb") as file:
    project = tomllib.load(file)["project"]
for extra in sys.argv[2].split(","):
    print(*project["optional-dependencies"][extra], sep="\n")
print(*project["dependencies"], sep="\n")
END
}

dependencies() {
    source=$1 extras=$2 venv=$3 further=${4:-$1/constraints.txt}
    "$PYTHON" -m venv --without-pip "$venv"
    requirements "$source" "$extras" > "$venv/requirements.txt"
    into "$venv" -c "$source/constraints.txt" -c "$further" -r "$venv/requirements.txt"
}

app() {
    source=$1 venv=$2 target=$3
    build=$(mktemp -d)
    "$PYTHON" -m venv --without-pip "$build/venv"
    into "$build/venv" -c "$source/constraints.txt" hatchling
    mkdir "$build/dist"
    PATH="$build/venv/bin:$PATH" $PIP --python "$build/venv/bin/python" wheel -q --no-cache-dir \
        --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir "$build/dist" "$source"
    into "$venv" --no-deps --target "$target" "$build"/dist/*.whl
    rm -rf "$build"
    export PYTHONPATH="$target"
    $PIP --python "$venv/bin/python" check --disable-pip-version-check
    NUMBA_CACHE_DIR="$target/kernels" "$venv/bin/python" -c 'from app.nuclei.hover import warm_up; warm_up()'
    KARYON_DEVICE=cpu NUMBA_CACHE_DIR="$target/kernels" "$venv/bin/python" -m app.cli models verify
    chmod -R a+rX "$target"
}

step=$1
shift
case $step in
    dependencies | app) "$step" "$@" ;;
    *) echo "install.sh: there is no step $step" >&2; exit 2 ;;
esac
