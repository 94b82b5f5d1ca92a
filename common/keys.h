/* keys.h - who may speak over TCP: CURVE keys in files, and the authenticator of the coordinator.
 *
 * A key pair is two text files: NAME.key (secret and public part, mode 0600) and NAME.pub (public part, role). Lines
 * are `word value`; `#` opens a comment. The coordinator's keys folder holds
 *     server.key  server.pub      its own pair (role "server")
 *     authorized/NAME.pub         whom it lets in, and as what; read again whenever it changes
 * Removing a file from authorized/ refuses the next connection; one that is already open stays until it closes.
 * Thread: the authenticator owns one thread and one inproc socket; everything else is called by the sockets' owner. */
#ifndef DIDACT_KEYS_H
#define DIDACT_KEYS_H

#include "common/err.h"

#include <stdbool.h>
#include <zmq.h>

enum key_role { ROLE_NONE, ROLE_VIEWER, ROLE_SUBMITTER, ROLE_WORKER, ROLE_ADMIN, ROLE_SERVER, ROLE_COUNT };

const char   *role_name(enum key_role r);      /* "viewer" … */
enum key_role role_from(const char *s);        /* ROLE_NONE: no such role */

/* Make a pair: `base`.key and `base`.pub. Refuses to overwrite either. role must not be ROLE_NONE. */
int keys_generate(const char *base, enum key_role role, struct errbuf *e);
/* A new keys folder: DIR, DIR/authorized, DIR/server.key and server.pub (kept where they exist). */
int keys_init_server(const char *keys_dir, struct errbuf *e);
/* Let a public key file in under `name` ("" : the file's own name): copied to DIR/authorized/NAME.pub. */
int keys_authorize(const char *keys_dir, const char *pub_file, const char *name, struct errbuf *e);

/* Before zmq_connect: own pair from `key_file` (NAME.key), the server's public part from `server_key_file`. */
int keys_client_setup(void *sock, const char *key_file, const char *server_key_file, struct errbuf *e);

/* Before zmq_bind of an address that needs keys (what was bound earlier on the same socket stays open: bind ipc and
 * loopback first). Starts the authenticator of `ctx` at inproc://zeromq.zap.01: one per context. -ERR_NOTFOUND when
 * keys_dir holds no server.key; -ERR_DENIED when others may read it. */
struct keys_auth;
int  keys_server_setup(void *ctx, void *router, const char *keys_dir, struct keys_auth **out, struct errbuf *e);
void keys_server_stop(struct keys_auth *a);    /* joins its thread; before zmq_ctx_term. NULL is fine */

/* Role of whoever sent a received message part. A peer on a socket without keys (ipc, loopback, --insecure) is
 * trusted by its place: ROLE_ADMIN. */
enum key_role keys_role(zmq_msg_t *m);
/* May `r` do what `need` may? admin may all; submitter may what viewer may; worker is apart. */
bool role_may(enum key_role r, enum key_role need);

/* ipc://, inproc://, or tcp:// to 127.0.0.0/8, [::1] or localhost. Everything else needs keys or --insecure. */
bool endpoint_is_local(const char *endpoint);

#endif
