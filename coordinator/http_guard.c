#include "coordinator/http_guard.h"

#include "common/fsio.h"

#include <arpa/inet.h>
#include <microhttpd.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

static int read_token(struct http_guard *g, const char *path, struct errbuf *e)
{
    struct stat st;
    char  *text = NULL;
    size_t len = 0;
    if (stat(path, &st) == 0 && (st.st_mode & 077) != 0)
        return err_set(e, ERR_DENIED, "%.300s: a token that others may read; run chmod 600", path);
    int rc = fs_read_all(path, 4096, &text, &len, e);
    if (rc < 0)
        return err_wrap(e, rc, "--http-token");
    size_t n = strcspn(text, "\r\n");
    bool one_line = text[n + strspn(text + n, "\r\n")] == 0 && strlen(text) == len;
    for (size_t i = 0; i < n; i++)
        one_line &= text[i] > 0x20 && text[i] < 0x7f;
    if (!one_line || n < HTTP_TOKEN_MIN || n > HTTP_TOKEN_MAX)
        rc = err_set(e, ERR_INPUT, "%.300s: a token is one line of %d to %d printable characters without spaces", path, HTTP_TOKEN_MIN, HTTP_TOKEN_MAX);
    else
        memcpy(g->token, text, n);
    sodium_memzero(text, len);
    free(text);
    return rc;
}

int http_guard_init(struct http_guard *g, const struct opts *o, struct errbuf *e)
{
    *g = (struct http_guard){ .public = o->http_public };
    return o->http_token[0] ? read_token(g, o->http_token, e) : 0;
}

bool http_host_is_local(const char *host)
{
    char name[64];
    struct in_addr a;
    size_t n = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
    if (n >= sizeof name || n > strlen(host) || (host[n] && (host[n] != ':' || strspn(host + n + 1, "0123456789") != strlen(host + n + 1))))
        return false;
    memcpy(name, host, n);
    name[n] = 0;
    return strcasecmp(name, "localhost") == 0 || strcmp(name, "[::1]") == 0 ||
           (strncmp(name, "127.", 4) == 0 && inet_pton(AF_INET, name, &a) == 1);
}

static const char *header(struct MHD_Connection *conn, const char *name) { return MHD_lookup_connection_value(conn, MHD_HEADER_KIND, name); }

int http_guard_host(const struct http_guard *g, struct MHD_Connection *conn, struct errbuf *e)
{
    const char *host = header(conn, "Host");
    if (g->public || !host || http_host_is_local(host))
        return 0;
    return err_set(e, ERR_DENIED, "this address answers to 127.0.0.1 and localhost only");
}

static bool is_json(const char *type)
{
    static const char json[] = "application/json";
    return type && strncasecmp(type, json, strlen(json)) == 0 && (type[strlen(json)] == 0 || strchr("; \t", type[strlen(json)]));
}

/* A page that we serve ourselves, under the name it was asked for. */
static bool is_our_origin(const char *origin, const char *host)
{
    static const char *const schemes[] = { "http://", "https://" };
    for (size_t i = 0; i < 2; i++)
        if (strncmp(origin, schemes[i], strlen(schemes[i])) == 0)
            return host && strcasecmp(origin + strlen(schemes[i]), host) == 0;
    return false;
}

static bool has_token(const struct http_guard *g, const char *authorization)
{
    char given[sizeof g->token] = "";
    if (!authorization || strncasecmp(authorization, "Bearer ", 7) != 0 || strlen(authorization + 7) > HTTP_TOKEN_MAX)
        return false;
    strcpy(given, authorization + 7); /* both are filled up with zeros: the time tells nothing */
    return sodium_memcmp(given, g->token, sizeof given) == 0;
}

int http_guard_write(const struct http_guard *g, struct MHD_Connection *conn, struct errbuf *e)
{
    const char *origin = header(conn, "Origin"), *site = header(conn, "Sec-Fetch-Site");
    if ((origin && !is_our_origin(origin, header(conn, "Host"))) || (site && strcmp(site, "same-origin") != 0 && strcmp(site, "none") != 0))
        return err_set(e, ERR_DENIED, "a web page of another site may not write here");
    if (g->token[0] && !has_token(g, header(conn, "Authorization")))
        return err_set(e, ERR_DENIED, "writing needs the token: Authorization: Bearer TOKEN");
    if (!g->token[0] && g->public)
        return err_set(e, ERR_DENIED, "this address is public and read-only: didactd --http-token FILE lets those write who know the token");
    if (!is_json(header(conn, "Content-Type")))
        return err_set(e, ERR_INPUT, "the body must be JSON: Content-Type: application/json");
    return 0;
}
