/* keys.c - key files, the client's side, and what an address needs. The authenticator is in keys_auth.c. */
#include "common/keys.h"

#include "common/fsio.h"
#include "common/keys_int.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const names[ROLE_COUNT] = { "none", "viewer", "submitter", "worker", "admin", "server" };

const char *role_name(enum key_role r) { return (unsigned)r < ROLE_COUNT ? names[r] : "none"; }

enum key_role role_from(const char *s)
{
    for (int i = ROLE_VIEWER; i < ROLE_COUNT; i++)
        if (strcmp(s, names[i]) == 0)
            return (enum key_role)i;
    return ROLE_NONE;
}

bool role_may(enum key_role r, enum key_role need)
{
    if (r == ROLE_ADMIN || r == need)
        return r != ROLE_NONE;
    return r == ROLE_SUBMITTER && need == ROLE_VIEWER;
}

enum key_role keys_role(zmq_msg_t *m)
{
    const char *user = zmq_msg_gets(m, "User-Id");
    return user ? role_from(user) : ROLE_ADMIN;
}

/* ---- files ---- */
static int set_field(struct key_file *k, const char *word, const char *value, const char *path, int line, struct errbuf *e)
{
    uint8_t raw[32];
    char   *key = strcmp(word, "public") == 0 ? k->public_key : strcmp(word, "secret") == 0 ? k->secret_key : NULL;
    if (key) {
        if (strlen(value) != Z85_LEN || !zmq_z85_decode(raw, value))
            return err_set(e, ERR_INPUT, "%s: line %d: not a %d-character key", path, line, Z85_LEN);
        sodium_memzero(raw, sizeof raw);
        memcpy(key, value, Z85_LEN + 1);
        return 0;
    }
    if (strcmp(word, "role") == 0) {
        k->role = role_from(value);
        if (k->role == ROLE_NONE)
            return err_set(e, ERR_INPUT, "%s: line %d: unknown role \"%s\" (viewer, submitter, worker, admin or server)", path,
                           line, value);
        return 0;
    }
    return err_set(e, ERR_INPUT, "%s: line %d: unknown word \"%s\" (public, secret or role)", path, line, word);
}

static int parse(char *text, const char *path, struct key_file *k, struct errbuf *e)
{
    int line = 0;
    for (char *s; (s = strsep(&text, "\n"));) { /* empty lines count, too */
        char word[16], value[64];
        line++;
        int n = sscanf(s, "%15s %63s", word, value);
        if (n <= 0 || word[0] == '#')
            continue;
        if (n != 2)
            return err_set(e, ERR_INPUT, "%s: line %d: a word without a value", path, line);
        int rc = set_field(k, word, value, path, line, e);
        if (rc < 0)
            return rc;
    }
    return k->public_key[0] ? 0 : err_set(e, ERR_INPUT, "%s: holds no public key", path);
}

int key_file_read(const char *path, bool secret, struct key_file *k, struct errbuf *e)
{
    struct stat st;
    char       *text = NULL;
    size_t      len = 0;
    memset(k, 0, sizeof *k);
    if (secret && stat(path, &st) == 0 && (st.st_mode & 077) != 0)
        return err_set(e, ERR_DENIED, "%s: a secret key that others may read; run chmod 600", path);
    int rc = fs_read_all(path, KEY_FILE_MAX, &text, &len, e);
    if (rc < 0)
        return err_wrap(e, rc, "key");
    rc = parse(text, path, k, e);
    sodium_memzero(text, len);
    free(text);
    if (rc < 0 || !secret)
        return rc;
    char derived[Z85_LEN + 1];
    if (!k->secret_key[0])
        return err_set(e, ERR_INPUT, "%s: holds no secret key (a .pub file?)", path);
    if (zmq_curve_public(derived, k->secret_key) != 0 || strcmp(derived, k->public_key) != 0)
        return err_set(e, ERR_INPUT, "%s: its public and secret part do not belong together", path);
    return 0;
}

static int path_join(char out[FS_PATH_MAX], const char *a, const char *b, const char *ext, struct errbuf *e)
{
    int n = snprintf(out, FS_PATH_MAX, "%s%s%s", a, b, ext);
    return n < FS_PATH_MAX ? 0 : err_set(e, ERR_INPUT, "%s: the path is too long", a);
}

int keys_generate(const char *base, enum key_role role, struct errbuf *e)
{
    char secret_path[FS_PATH_MAX], public_path[FS_PATH_MAX], text[512];
    char pub[Z85_LEN + 1], sec[Z85_LEN + 1];
    int  rc = 0;
    if (role <= ROLE_NONE || role >= ROLE_COUNT)
        return err_set(e, ERR_USAGE, "%s: a key needs a role", base);
    if (path_join(secret_path, base, "", ".key", e) < 0 || path_join(public_path, base, "", ".pub", e) < 0)
        return -ERR_INPUT;
    if (access(secret_path, F_OK) == 0 || access(public_path, F_OK) == 0)
        return err_set(e, ERR_STATE, "%s: exists; keys are never overwritten",
                       access(secret_path, F_OK) == 0 ? secret_path : public_path);
    if (zmq_curve_keypair(pub, sec) != 0)
        return err_set(e, ERR_UNAVAILABLE, "this libzmq was built without CURVE");
    int n = snprintf(text, sizeof text, "# Didact secret key (%s). Give it to nobody.\npublic %s\nsecret %s\nrole %s\n",
                     role_name(role), pub, sec, role_name(role));
    rc = fs_write_private(secret_path, text, (size_t)n, e);
    if (rc == 0) {
        n = snprintf(text, sizeof text, "# Didact public key (%s).\npublic %s\nrole %s\n", role_name(role), pub,
                     role_name(role));
        rc = fs_write_atomic(public_path, text, (size_t)n, e);
        if (rc < 0)
            unlink(secret_path);
    }
    sodium_memzero(sec, sizeof sec);
    sodium_memzero(text, sizeof text);
    return rc;
}

int keys_init_server(const char *keys_dir, struct errbuf *e)
{
    char path[FS_PATH_MAX];
    int  rc = path_join(path, keys_dir, "/authorized", "", e);
    if (rc == 0)
        rc = fs_mkdir_p(path, e);
    if (rc == 0)
        rc = path_join(path, keys_dir, "/server", ".key", e);
    if (rc < 0 || access(path, F_OK) == 0)
        return rc;
    path[strlen(path) - 4] = 0;
    return keys_generate(path, ROLE_SERVER, e);
}

int keys_authorize(const char *keys_dir, const char *pub_file, const char *name, struct errbuf *e)
{
    struct key_file k;
    char            dir[FS_PATH_MAX], path[FS_PATH_MAX], text[256], own[256];
    int             rc = key_file_read(pub_file, false, &k, e);
    if (rc < 0)
        return rc;
    if (k.secret_key[0])
        return err_set(e, ERR_INPUT, "%s: a secret key; hand over the .pub file", pub_file);
    if (k.role == ROLE_NONE || k.role == ROLE_SERVER)
        return err_set(e, ERR_INPUT, "%s: needs a line `role viewer|submitter|worker|admin`", pub_file);
    if (!name[0]) {
        const char *slash = strrchr(pub_file, '/');
        snprintf(own, sizeof own, "%s", slash ? slash + 1 : pub_file);
        size_t n = strlen(own);
        if (n > 4 && strcmp(own + n - 4, ".pub") == 0)
            own[n - 4] = 0;
        name = own;
    }
    if (strchr(name, '/') || name[0] == '.' || strlen(name) > 200)
        return err_set(e, ERR_INPUT, "\"%s\" is not a name for a key", name);
    rc = path_join(dir, keys_dir, "/authorized/", "", e);
    if (rc == 0)
        rc = fs_mkdir_p(dir, e);
    if (rc == 0)
        rc = path_join(path, dir, name, ".pub", e);
    int n = snprintf(text, sizeof text, "public %s\nrole %s\n", k.public_key, role_name(k.role));
    return rc == 0 ? fs_write_atomic(path, text, (size_t)n, e) : rc;
}

/* ---- sockets ---- */
int keys_client_setup(void *sock, const char *key_file, const char *server_key_file, struct errbuf *e)
{
    struct key_file own, server;
    int             rc = key_file_read(key_file, true, &own, e);
    if (rc == 0)
        rc = key_file_read(server_key_file, false, &server, e);
    if (rc == 0 && (zmq_setsockopt(sock, ZMQ_CURVE_SERVERKEY, server.public_key, Z85_LEN + 1) != 0 ||
                    zmq_setsockopt(sock, ZMQ_CURVE_PUBLICKEY, own.public_key, Z85_LEN + 1) != 0 ||
                    zmq_setsockopt(sock, ZMQ_CURVE_SECRETKEY, own.secret_key, Z85_LEN + 1) != 0))
        rc = err_set(e, ERR_UNAVAILABLE, "CURVE: %s", zmq_strerror(errno));
    sodium_memzero(&own, sizeof own);
    return rc;
}

static bool loopback_host(const char *host)
{
    struct in_addr  v4;
    struct in6_addr v6;
    if (inet_pton(AF_INET, host, &v4) == 1)
        return ntohl(v4.s_addr) >> 24 == 127;
    if (inet_pton(AF_INET6, host, &v6) == 1)
        return IN6_IS_ADDR_LOOPBACK(&v6) ||
               (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127);
    return strcmp(host, "localhost") == 0 || strcmp(host, "lo") == 0;
}

bool endpoint_is_local(const char *endpoint)
{
    char host[256];
    if (strncmp(endpoint, "ipc://", 6) == 0 || strncmp(endpoint, "inproc://", 9) == 0)
        return true;
    if (strncmp(endpoint, "tcp://", 6) != 0)
        return false;
    const char *at = endpoint + 6, *semi = strrchr(at, ';'); /* tcp://source;destination */
    if (semi)
        at = semi + 1;
    const char *colon = strrchr(at, ':');
    size_t      n = colon ? (size_t)(colon - at) : strlen(at);
    if (n >= 2 && at[0] == '[' && at[n - 1] == ']') {
        at++;
        n -= 2;
    }
    if (n == 0 || n >= sizeof host)
        return false;
    memcpy(host, at, n);
    host[n] = 0;
    return loopback_host(host);
}
