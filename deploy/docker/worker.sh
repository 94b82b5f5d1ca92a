#!/bin/sh
# One worker in a container: a slot per core that the container may use, named after it.
#   worker.sh tcp://coordinator:7707
set -eu
server=${1:?usage: worker.sh ENDPOINT}
slots=${DIDACT_SLOTS:-$(nproc)}
exec didact-worker --connect "$server" --dir /var/lib/didact/worker --name "$(hostname)" --slots "$slots" \
    --mem-mb "${DIDACT_MEM_MB:-1024}" --key /keys/worker.key --server-key /keys/server/server.pub
