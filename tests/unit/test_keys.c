/* CURVE keys over real sockets on the loopback address, and what an address needs. */
#include "common/fsio.h"
#include "common/keys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct site {
    char dir[256], keys[300], base[320], endpoint[256], local[320];
    void *ctx, *router;
    void *other; /* what a test opened: closed here, for a context with an open socket never ends and a failed assertion closes none */
    struct keys_auth *auth;
};

static const char *in(struct site *s, const char *name)
{
    static char path[4][700];
    static int  i;
    i = (i + 1) % 4;
    snprintf(path[i], sizeof path[i], "%s/%s", s->dir, name);
    return path[i];
}

static void must(int rc, struct errbuf *e)
{
    if (rc < 0)
        fail_msg("%s: %s", err_name(rc), e->text);
}

static void *open_other(struct site *s, int type)
{
    int linger = 0;
    s->other = zmq_socket(s->ctx, type);
    zmq_setsockopt(s->other, ZMQ_LINGER, &linger, sizeof linger);
    return s->other;
}

static void close_other(struct site *s)
{
    if (s->other)
        zmq_close(s->other);
    s->other = NULL;
}

/* A router with an ipc address without keys and a TCP address with them, and three client keys, two let in. */
static int setup(void **state)
{
    struct site  *s = calloc(1, sizeof *s);
    struct errbuf e = { 0 };
    size_t        n = sizeof s->endpoint;
    int           linger = 0;
    snprintf(s->dir, sizeof s->dir, "/tmp/didact-keys-XXXXXX");
    assert_non_null(mkdtemp(s->dir));
    snprintf(s->keys, sizeof s->keys, "%s/keys", s->dir);
    must(keys_init_server(s->keys, &e), &e);
    must(keys_generate(in(s, "w1"), ROLE_WORKER, &e), &e);
    must(keys_generate(in(s, "ann"), ROLE_VIEWER, &e), &e);
    must(keys_generate(in(s, "stranger"), ROLE_ADMIN, &e), &e);
    must(keys_authorize(s->keys, in(s, "w1.pub"), "", &e), &e);
    must(keys_authorize(s->keys, in(s, "ann.pub"), "ann-laptop", &e), &e);
    s->ctx = zmq_ctx_new();
    s->router = zmq_socket(s->ctx, ZMQ_ROUTER);
    zmq_setsockopt(s->router, ZMQ_LINGER, &linger, sizeof linger);
    snprintf(s->local, sizeof s->local, "ipc://%s/sock", s->dir);
    assert_int_equal(zmq_bind(s->router, s->local), 0);
    must(keys_server_setup(s->ctx, s->router, s->keys, &s->auth, &e), &e);
    assert_int_equal(zmq_bind(s->router, "tcp://127.0.0.1:*"), 0);
    assert_int_equal(zmq_getsockopt(s->router, ZMQ_LAST_ENDPOINT, s->endpoint, &n), 0);
    *state = s;
    return 0;
}

static int teardown(void **state)
{
    struct site *s = *state;
    char         cmd[400];
    close_other(s);
    zmq_close(s->router);
    keys_server_stop(s->auth);
    zmq_ctx_term(s->ctx);
    snprintf(cmd, sizeof cmd, "rm -rf '%s'", s->dir);
    assert_int_equal(system(cmd), 0);
    free(s);
    return 0;
}

/* Send one message from a fresh client; its role as the router sees it, or -1 when nothing arrives. */
static int role_seen(struct site *s, const char *endpoint, const char *key, const char *server_key, int wait_ms)
{
    struct errbuf e = { 0 };
    int           role = -1;
    void         *dealer = open_other(s, ZMQ_DEALER);
    if (key)
        must(keys_client_setup(dealer, key, server_key, &e), &e);
    assert_int_equal(zmq_connect(dealer, endpoint), 0);
    assert_int_equal(zmq_send(dealer, "hello", 5, 0), 5);
    zmq_pollitem_t item = { s->router, 0, ZMQ_POLLIN, 0 };
    if (zmq_poll(&item, 1, wait_ms) == 1) {
        zmq_msg_t m;
        zmq_msg_init(&m);
        zmq_msg_recv(&m, s->router, 0);
        zmq_msg_recv(&m, s->router, 0);
        assert_int_equal(zmq_msg_size(&m), 5);
        role = (int)keys_role(&m);
        zmq_msg_close(&m);
    }
    close_other(s);
    return role;
}

static void an_authorised_key_arrives_with_its_role(void **state)
{
    struct site *s = *state;
    char         server[320];
    snprintf(server, sizeof server, "%s/server.pub", s->keys);
    assert_int_equal(role_seen(s, s->endpoint, in(s, "w1.key"), server, 5000), ROLE_WORKER);
    assert_int_equal(role_seen(s, s->endpoint, in(s, "ann.key"), server, 5000), ROLE_VIEWER);
}

static void a_key_that_is_not_authorised_is_kept_out_until_it_is(void **state)
{
    struct site  *s = *state;
    struct errbuf e = { 0 };
    char          server[320], listed[400];
    snprintf(server, sizeof server, "%s/server.pub", s->keys);
    assert_int_equal(role_seen(s, s->endpoint, in(s, "stranger.key"), server, 300), -1);
    must(keys_authorize(s->keys, in(s, "stranger.pub"), "", &e), &e);
    assert_int_equal(role_seen(s, s->endpoint, in(s, "stranger.key"), server, 5000), ROLE_ADMIN);
    snprintf(listed, sizeof listed, "%s/authorized/stranger.pub", s->keys);
    assert_int_equal(unlink(listed), 0);
    assert_int_equal(role_seen(s, s->endpoint, in(s, "stranger.key"), server, 300), -1);
}

static void a_client_without_a_key_or_with_a_wrong_server_key_is_kept_out(void **state)
{
    struct site *s = *state;
    assert_int_equal(role_seen(s, s->endpoint, NULL, NULL, 300), -1);
    assert_int_equal(role_seen(s, s->endpoint, in(s, "w1.key"), in(s, "ann.pub"), 300), -1);
}

static void an_address_bound_before_the_keys_stays_open_and_trusted(void **state)
{
    struct site *s = *state;
    assert_int_equal(role_seen(s, s->local, NULL, NULL, 5000), ROLE_ADMIN);
}

static void files_are_private_and_never_overwritten(void **state)
{
    struct site  *s = *state;
    struct errbuf e = { 0 };
    struct stat   st;
    assert_int_equal(stat(in(s, "w1.key"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(keys_generate(in(s, "w1"), ROLE_WORKER, &e), -ERR_STATE);
    assert_non_null(strstr(e.text, "w1.key"));
    must(keys_init_server(s->keys, &e), &e); /* again: keeps what is there */
}

static void bad_key_files_are_refused_by_name(void **state)
{
    struct site  *s = *state;
    struct errbuf e = { 0 };
    void         *sock = open_other(s, ZMQ_DEALER);
    static const struct { const char *text, *says; } bad[] = {
        { "public tooshort\n", "bad.pub: line 1: not a" },
        { "role king\n", "king" },
        { "role worker\n", "no public key" },
        { "colour blue\n", "colour" },
        { "public\n", ": line 1: a word without a value" },
        { "# a key\n\n\npublic\n", ": line 4: a word without a value" },
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        must(fs_write_private(in(s, "bad.pub"), bad[i].text, strlen(bad[i].text), &e), &e);
        assert_int_equal(keys_client_setup(sock, in(s, "w1.key"), in(s, "bad.pub"), &e), -ERR_INPUT);
        assert_non_null(strstr(e.text, bad[i].says));
    }
    assert_int_equal(keys_client_setup(sock, in(s, "w1.pub"), in(s, "ann.pub"), &e) < 0, 1);
    assert_int_equal(keys_client_setup(sock, in(s, "gone.key"), in(s, "ann.pub"), &e), -ERR_NOTFOUND);
    assert_non_null(strstr(e.text, "gone.key"));
    assert_int_equal(chmod(in(s, "w1.key"), 0644), 0);
    assert_int_equal(keys_client_setup(sock, in(s, "w1.key"), in(s, "ann.pub"), &e), -ERR_DENIED);
    assert_int_equal(keys_authorize(s->keys, in(s, "w1.key"), "", &e), -ERR_INPUT);
}

static void a_missing_server_key_names_the_file(void **state)
{
    struct site      *s = *state;
    struct errbuf     e = { 0 };
    struct keys_auth *a = NULL;
    void             *router = open_other(s, ZMQ_ROUTER);
    assert_int_equal(keys_server_setup(s->ctx, router, in(s, "nowhere"), &a, &e), -ERR_NOTFOUND);
    assert_non_null(strstr(e.text, "nowhere/server.key"));
    assert_null(a);
}

static void only_loopback_ipc_and_inproc_are_local(void **state)
{
    (void)state;
    static const char *const local[] = { "ipc:///tmp/x", "inproc://a", "tcp://127.0.0.1:5000", "tcp://127.9.9.9:1",
                                         "tcp://[::1]:5", "tcp://localhost:80", "tcp://127.0.0.1:*" };
    static const char *const far[] = { "tcp://*:5000", "tcp://0.0.0.0:5000", "tcp://192.168.1.2:5", "tcp://[::]:5",
                                       "tcp://localhost.example.org:5", "tcp://127.0.0.1.example.org:5", "tcp://eth0:5",
                                       "tcp://127.0.0.1;10.0.0.1:5", "udp://127.0.0.1:5", "pgm://x", "", "tcp://:5" };
    for (size_t i = 0; i < sizeof local / sizeof local[0]; i++)
        if (!endpoint_is_local(local[i]))
            fail_msg("%s is local", local[i]);
    for (size_t i = 0; i < sizeof far / sizeof far[0]; i++)
        if (endpoint_is_local(far[i]))
            fail_msg("%s is not local", far[i]);
}

static void roles_allow_what_they_should(void **state)
{
    (void)state;
    assert_true(role_may(ROLE_ADMIN, ROLE_WORKER) && role_may(ROLE_ADMIN, ROLE_SUBMITTER));
    assert_true(role_may(ROLE_SUBMITTER, ROLE_VIEWER) && role_may(ROLE_WORKER, ROLE_WORKER));
    assert_false(role_may(ROLE_VIEWER, ROLE_SUBMITTER) || role_may(ROLE_WORKER, ROLE_VIEWER));
    assert_false(role_may(ROLE_SUBMITTER, ROLE_WORKER) || role_may(ROLE_NONE, ROLE_NONE));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_authorised_key_arrives_with_its_role, setup, teardown),
        cmocka_unit_test_setup_teardown(a_key_that_is_not_authorised_is_kept_out_until_it_is, setup, teardown),
        cmocka_unit_test_setup_teardown(a_client_without_a_key_or_with_a_wrong_server_key_is_kept_out, setup, teardown),
        cmocka_unit_test_setup_teardown(an_address_bound_before_the_keys_stays_open_and_trusted, setup, teardown),
        cmocka_unit_test_setup_teardown(files_are_private_and_never_overwritten, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_key_files_are_refused_by_name, setup, teardown),
        cmocka_unit_test_setup_teardown(a_missing_server_key_names_the_file, setup, teardown),
        cmocka_unit_test(only_loopback_ipc_and_inproc_are_local),
        cmocka_unit_test(roles_allow_what_they_should),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
