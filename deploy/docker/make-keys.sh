#!/bin/sh
# Once per volume: the coordinator's pair, and an authorised pair each for workers and for an administrator.
#   make-keys.sh /keys        gives /keys/server/…, /keys/worker.key, /keys/admin.key
set -eu
keys=${1:?usage: make-keys.sh FOLDER}
umask 077
[ -e "$keys/server/server.key" ] || didact keygen --server "$keys/server"
for role in worker admin; do
    [ -e "$keys/$role.key" ] || didact keygen "$keys/$role" --role "$role"
    [ -e "$keys/server/authorized/$role.pub" ] || didact keygen "$keys/$role.pub" --authorize "$keys/server"
done
chown -R didact:didact "$keys"
