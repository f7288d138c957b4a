#!/bin/sh
# What happens between the start of a container and the start of Karyon? The kernels that were compiled with the image
# are laid where numba may also write, which it insists on; the image itself may be read-only.
set -eu

if mkdir -p "$NUMBA_CACHE_DIR" 2> /dev/null && [ -w "$NUMBA_CACHE_DIR" ]; then
    cp -R "$KERNELS/." "$NUMBA_CACHE_DIR"
else
    echo "karyon: $NUMBA_CACHE_DIR cannot be written; kernels will be compiled at this start, which takes longer" >&2
fi
exec "$@"
