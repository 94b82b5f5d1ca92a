/* local.c - start, stop and look at the processes of one folder. A pid file is believed only where that process runs and is one of
 * ours by name: numbers are used again. A process that died leaves its log; the last lines of it are the error message. */
#include "client/local.h"

#include "client/conn.h"
#include "common/blob.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define START_S 30.0 /* a coordinator, or its workers, must be there after this */
#define STOP_S  20.0 /* after SIGTERM; a worker finishes or hands back what it holds */

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void nap_ms(int ms)
{
    struct timespec t = { ms / 1000, (ms % 1000) * 1000000L };
    nanosleep(&t, NULL);
}

/* dir/name; a path that does not fit was refused by local_dir. */
static void in_dir(char out[FS_PATH_MAX], const char *dir, const char *name)
{
    if (snprintf(out, FS_PATH_MAX, "%s/%s", dir, name) >= FS_PATH_MAX)
        out[0] = 0;
}

/* ---- where things are ---- */

int local_dir(const char *given, char out[FS_PATH_MAX], struct errbuf *e)
{
    enum { ROOM = 128 }; /* for names inside */
    char path[FS_PATH_MAX], cwd[FS_PATH_MAX] = "";
    int rc = 0;
    if (given && *given)
        snprintf(path, sizeof path, "%s", given);
    else if ((rc = conn_default_dir(path, sizeof path, e)) < 0)
        return rc;
    if (path[0] != '/' && !getcwd(cwd, sizeof cwd))
        return fs_error(e, errno, "cannot find", "the current folder");
    if (strlen(cwd) + strlen(path) + ROOM >= FS_PATH_MAX)
        return err_set(e, ERR_USAGE, "the folder's name is too long");
    int n = snprintf(out, FS_PATH_MAX, "%s%s%s", cwd, cwd[0] ? "/" : "", path);
    while (n > 1 && out[n - 1] == '/')
        out[--n] = 0;
    return 0;
}

static int own_dir(char out[FS_PATH_MAX], struct errbuf *e)
{
    ssize_t n = readlink("/proc/self/exe", out, FS_PATH_MAX - 1);
    if (n <= 0)
        return fs_error(e, errno, "cannot read", "/proc/self/exe");
    out[n] = 0;
    *strrchr(out, '/') = 0;
    return 0;
}

int local_program(const char *name, char out[FS_PATH_MAX], struct errbuf *e)
{
    char dir[FS_PATH_MAX];
    int rc = own_dir(dir, e);
    if (rc < 0)
        return rc;
    if (snprintf(out, FS_PATH_MAX, "%s/%s", dir, name) >= FS_PATH_MAX || access(out, X_OK) != 0)
        return err_set(e, ERR_UNAVAILABLE, "%s is not next to didact in %s", name, dir);
    return 0;
}

int local_share(char out[FS_PATH_MAX], struct errbuf *e)
{
    char exe[FS_PATH_MAX], probe[FS_PATH_MAX + 32];
    const char *env = getenv("DIDACT_SHARE");
    int rc = own_dir(exe, e);
    if (rc < 0)
        return rc;
    /* installed; build/didact; build/VARIANT/didact */
    const char *below[] = { "", "/../share/didact", "/../share", "/../../share" };
    for (size_t i = 0; i < sizeof below / sizeof below[0]; i++) {
        if (i == 0 && (!env || !*env))
            continue;
        if (snprintf(out, FS_PATH_MAX, "%s%s", i == 0 ? env : exe, below[i]) >= FS_PATH_MAX)
            continue;
        snprintf(probe, sizeof probe, "%s/curricula", out);
        if (fs_is_dir(probe))
            return 0;
    }
    return err_set(e, ERR_NOTFOUND, "the folder share/curricula that comes with Didact is not near %s (DIDACT_SHARE names another)", exe);
}

/* ---- processes ---- */

/* Does process `pid` run, and is it `program`? A zombie does not run. */
static bool alive(long pid, const char *program)
{
    char path[64], text[512];
    if (pid <= 1)
        return false;
    waitpid((pid_t)pid, NULL, WNOHANG); /* where it is our own child */
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0)
        return false;
    text[n] = 0;
    char *open_ = strchr(text, '('), *close_ = strrchr(text, ')'); /* "pid (comm) state …"; comm has at most 15 letters */
    if (!open_ || !close_ || close_[1] != ' ' || close_[2] == 'Z' || close_[2] == 'X')
        return false;
    *close_ = 0;
    return strncmp(open_ + 1, program, 15) == 0;
}

static long read_pid(const char *dir, const char *name)
{
    char path[FS_PATH_MAX], *text = NULL, part[64];
    snprintf(part, sizeof part, "run/%s.pid", name);
    in_dir(path, dir, part);
    if (fs_read_all(path, 64, &text, NULL, NULL) < 0)
        return 0;
    long pid = atol(text);
    free(text);
    return pid;
}

static const char *program_of(const char *name)
{
    return strcmp(name, "didactd") == 0 ? "didactd" : "didact-worker";
}

static int by_name(const void *a, const void *b) /* worker-2 before worker-10 */
{
    const char *x = a, *y = b; /* both start with a name */
    size_t n = strlen(x), m = strlen(y);
    return n != m ? (n < m ? -1 : 1) : strcmp(x, y);
}

void local_look(const char *dir, struct local_state *out)
{
    char run[FS_PATH_MAX];
    *out = (struct local_state){ 0 };
    long pid = read_pid(dir, "didactd");
    if (alive(pid, "didactd"))
        out->coordinator = pid;
    in_dir(run, dir, "run");
    DIR *d = opendir(run);
    for (struct dirent *f; d && (f = readdir(d)) && out->n_workers < LOCAL_MAX_WORKERS;) {
        int number, used = 0;
        char name[32];
        if (sscanf(f->d_name, "worker-%d.pid%n", &number, &used) != 1 || f->d_name[used] || number < 1 || number > 9999)
            continue;
        snprintf(name, sizeof name, "worker-%d", number);
        pid = read_pid(dir, name);
        if (!alive(pid, "didact-worker"))
            continue;
        memcpy(out->worker[out->n_workers].name, name, sizeof name);
        out->worker[out->n_workers++].pid = pid;
    }
    if (d)
        closedir(d);
    qsort(out->worker, (size_t)out->n_workers, sizeof out->worker[0], by_name);
}

/* The child: its own session, the log as output, nothing else of ours. Only async-signal-safe calls. */
static void __attribute__((noreturn)) become(int log, int tell, char *const *argv, char *const *env)
{
    int null = open("/dev/null", O_RDONLY), err;
    setsid();
    if (null < 0 || dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
        goto failed;
    signal(SIGINT, SIG_DFL);
    signal(SIGPIPE, SIG_DFL);
    if (tell != 3 && dup3(tell, 3, O_CLOEXEC) < 0)
        goto failed;
    tell = 3;
    close_range(4, ~0U, 0);
    execve(argv[0], argv, env);
failed:
    err = errno;
    if (write(tell, &err, sizeof err) < 0)
        _exit(126);
    _exit(127);
}

/* Our environment without what would lead a local process elsewhere; flags say all that it needs. */
static char **local_env(void)
{
    static const char *const out[] = { "DIDACT_CONNECT=", "DIDACT_KEY=", "DIDACT_SERVER_KEY=", "DIDACT_KEYS=", "DIDACT_LISTEN=",
                                       "DIDACT_HTTP=", "DIDACT_DIR=", "DIDACT_NAME=" };
    size_t n = 0, k = 0;
    while (environ[n])
        n++;
    char **env = calloc(n + 1, sizeof *env);
    for (size_t i = 0; env && i < n; i++) {
        bool keep = true;
        for (size_t j = 0; j < sizeof out / sizeof out[0]; j++)
            keep = keep && strncmp(environ[i], out[j], strlen(out[j])) != 0;
        if (keep)
            env[k++] = environ[i];
    }
    return env;
}

/* Start argv as a daemon named `name`: its pid file and log are written here. */
static int spawn(const char *dir, const char *name, char *const *argv, struct errbuf *e)
{
    char path[FS_PATH_MAX], part[64], pid_text[32];
    int tell[2], err = 0;
    snprintf(part, sizeof part, "logs/%s.log", name);
    in_dir(path, dir, part);
    int log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (log < 0)
        return fs_error(e, errno, "cannot open", path);
    if (pipe2(tell, O_CLOEXEC) != 0) {
        close(log);
        return err_set(e, ERR_IO, "cannot make a pipe: %s", strerror(errno));
    }
    fflush(NULL);
    char **env = local_env();
    pid_t pid = env ? fork() : -1;
    if (pid == 0)
        become(log, tell[1], argv, env);
    int fork_error = env ? errno : ENOMEM;
    free(env);
    close(log);
    close(tell[1]);
    ssize_t n = pid > 0 ? read(tell[0], &err, sizeof err) : 0;
    close(tell[0]);
    if (pid < 0)
        return err_set(e, ERR_IO, "cannot start %s: %s", argv[0], strerror(fork_error));
    if (n == (ssize_t)sizeof err) {
        waitpid(pid, NULL, 0);
        return err_set(e, ERR_IO, "cannot start %s: %s", argv[0], strerror(err));
    }
    snprintf(part, sizeof part, "run/%s.pid", name);
    in_dir(path, dir, part);
    snprintf(pid_text, sizeof pid_text, "%ld\n", (long)pid);
    return fs_write_atomic(path, pid_text, strlen(pid_text), e);
}

/* The last lines of a log, for an error message. */
static void log_tail(const char *dir, const char *name, char *out, size_t cap)
{
    char path[FS_PATH_MAX], part[64], text[302];
    snprintf(part, sizeof part, "logs/%s.log", name);
    in_dir(path, dir, part);
    out[0] = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    off_t size = lseek(fd, 0, SEEK_END);
    off_t from = size > 300 ? size - 300 : 0;
    ssize_t n = pread(fd, text, sizeof text - 1, from);
    close(fd);
    if (n <= 0)
        return;
    while (n > 0 && text[n - 1] == '\n')
        n--;
    text[n] = 0;
    char *start = from > 0 && strchr(text, '\n') ? strchr(text, '\n') + 1 : text;
    if (strlen(start) < cap)
        memcpy(out, start, strlen(start) + 1);
}

static int did_not_start(const char *dir, const char *name, const char *what, struct errbuf *e)
{
    char tail[320];
    log_tail(dir, name, tail, sizeof tail);
    return err_set(e, ERR_FAILED, "%s %s; its log %.60s/logs/%s.log ends:\n%s", name, what, dir, name, tail[0] ? tail : "(empty)");
}

/* ---- the coordinator ---- */

/* ipc paths have at most 107 bytes: a deep folder gets a short socket elsewhere, named by the folder's hash. didactd writes it
 * into endpoints.json, so that nobody needs to know. */
static int socket_endpoint(const char *dir, char *out, size_t cap, struct errbuf *e)
{
    enum { LONGEST = sizeof((struct sockaddr_un *)0)->sun_path - 1 };
    const char *run = getenv("XDG_RUNTIME_DIR");
    char folder[256];
    hash_str hash;
    if (strlen(dir) + strlen("/didactd.sock") <= LONGEST && snprintf(out, cap, "ipc://%s/didactd.sock", dir) < (int)cap)
        return 0;
    hash_bytes(dir, strlen(dir), hash);
    if (run && *run && strlen(run) < 60)
        snprintf(folder, sizeof folder, "%s/didact-%.12s", run, hash);
    else
        snprintf(folder, sizeof folder, "/tmp/didact-%ld-%.12s", (long)getuid(), hash);
    struct stat st;
    if (mkdir(folder, 0700) != 0 && errno != EEXIST)
        return fs_error(e, errno, "cannot make a folder for the socket", folder);
    if (lstat(folder, &st) != 0 || !S_ISDIR(st.st_mode) || st.st_uid != getuid() || (st.st_mode & 077))
        return err_set(e, ERR_DENIED, "%s: a folder for the socket must be ours alone (the path of %s is too long for one)", folder, dir);
    snprintf(out, cap, "ipc://%s/sock", folder);
    return 0;
}

static int answers(const char *dir, double *online, struct errbuf *e)
{
    struct conn_cfg cfg = { .dir = dir, .timeout_ms = 2000 };
    struct conn *conn;
    json_t *doc;
    int rc = conn_open(&cfg, &conn, e);
    if (rc < 0)
        return rc;
    rc = conn_query(conn, &doc, e, "status");
    if (rc == 0) {
        *online = json_number_value(json_object_get(json_object_get(doc, "workers"), "online"));
        json_decref(doc);
    }
    conn_close(conn);
    return rc;
}

static int start_coordinator(const struct local_cfg *cfg, FILE *talk, struct errbuf *e)
{
    char program[FS_PATH_MAX], endpoint[320], path[FS_PATH_MAX];
    double online;
    struct local_state st;
    local_look(cfg->dir, &st);
    if (st.coordinator) {
        if (talk)
            fprintf(talk, "the coordinator runs already (process %ld)\n", st.coordinator);
    } else {
        int rc = local_program("didactd", program, e);
        if (rc < 0 || (rc = socket_endpoint(cfg->dir, endpoint, sizeof endpoint, e)) < 0)
            return rc;
        in_dir(path, cfg->dir, "endpoints.json"); /* of an earlier run: it must not be taken for this one's */
        unlink(path);
        char *argv[] = { program, "--dir", (char *)cfg->dir, "--listen", endpoint, "--http", "127.0.0.1:0", NULL };
        if ((rc = spawn(cfg->dir, "didactd", argv, e)) < 0)
            return rc;
    }
    for (double end = now_s() + START_S; now_s() < end; nap_ms(50)) {
        if (!alive(read_pid(cfg->dir, "didactd"), "didactd"))
            return did_not_start(cfg->dir, "didactd", "ended at once", e);
        if (answers(cfg->dir, &online, e) == 0)
            return 0;
    }
    return did_not_start(cfg->dir, "didactd", "does not answer", e);
}

/* ---- workers ---- */

static int endpoint_in(const char *dir, char *out, size_t cap, struct errbuf *e)
{
    struct conn_cfg cfg = { .dir = dir };
    struct conn *conn;
    int rc = conn_open(&cfg, &conn, e);
    if (rc < 0)
        return rc;
    snprintf(out, cap, "%s", conn_endpoint(conn));
    conn_close(conn);
    return 0;
}

static int start_worker(const struct local_cfg *cfg, const char *endpoint, int number, struct errbuf *e)
{
    char program[FS_PATH_MAX], name[32], dir[FS_PATH_MAX + 64], slots[16], threads[16];
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int rc = local_program("didact-worker", program, e);
    if (rc < 0)
        return rc;
    snprintf(name, sizeof name, "worker-%d", number);
    snprintf(dir, sizeof dir, "%s/workers/%s", cfg->dir, name);
    snprintf(slots, sizeof slots, "%d", cfg->slots);
    snprintf(threads, sizeof threads, "%d", cfg->threads ? cfg->threads : cores > 0 ? (int)cores : 1);
    if ((rc = fs_mkdir_p(dir, e)) < 0)
        return rc;
    char *argv[] = { program, "--connect", (char *)endpoint, "--dir", dir, "--name", name, "--slots", slots, "--threads", threads, "--device", number == 1 ? "auto" : "cpu", NULL };
    return spawn(cfg->dir, name, argv, e);
}

static bool running(const struct local_state *st, const char *name)
{
    for (int i = 0; i < st->n_workers; i++)
        if (strcmp(st->worker[i].name, name) == 0)
            return true;
    return false;
}

static int start_workers(const struct local_cfg *cfg, FILE *talk, struct errbuf *e)
{
    char endpoint[512], name[32];
    struct local_state st;
    double online = 0;
    int started = 0, rc = endpoint_in(cfg->dir, endpoint, sizeof endpoint, e);
    local_look(cfg->dir, &st);
    for (int i = 1; i <= cfg->workers && rc == 0; i++) {
        snprintf(name, sizeof name, "worker-%d", i);
        if (running(&st, name))
            continue;
        rc = start_worker(cfg, endpoint, i, e);
        started++;
    }
    if (rc < 0)
        return rc;
    if (talk && started == 0 && cfg->workers > 0)
        fprintf(talk, "%d worker%s run%s already\n", st.n_workers, st.n_workers == 1 ? "" : "s", st.n_workers == 1 ? "s" : "");
    for (double end = now_s() + START_S; now_s() < end; nap_ms(50)) {
        local_look(cfg->dir, &st);
        for (int i = 1; i <= cfg->workers; i++) {
            snprintf(name, sizeof name, "worker-%d", i);
            if (!running(&st, name))
                return did_not_start(cfg->dir, name, "ended at once", e);
        }
        if (answers(cfg->dir, &online, e) == 0 && online >= cfg->workers)
            return 0;
    }
    return err_set(e, ERR_TIMEOUT, "after %g s only %.0f of %d workers are online; see %s/logs", START_S, online, cfg->workers, cfg->dir);
}

/* ---- start and stop ---- */

static int lock_dir(const char *dir, int *fd, struct errbuf *e)
{
    char path[FS_PATH_MAX];
    in_dir(path, dir, "run/lock");
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (*fd < 0)
        return fs_error(e, errno, "cannot open", path);
    for (double end = now_s() + 60; flock(*fd, LOCK_EX | LOCK_NB) != 0; nap_ms(50))
        if (now_s() > end) {
            close(*fd);
            return err_set(e, ERR_BUSY, "another didact local works on %s", dir);
        }
    return 0;
}

int local_start(const struct local_cfg *cfg, FILE *talk, struct errbuf *e)
{
    static const char *const folders[] = { "logs", "run", "workers" };
    char path[FS_PATH_MAX];
    int lock, rc = 0;
    for (size_t i = 0; i < sizeof folders / sizeof folders[0] && rc == 0; i++) {
        in_dir(path, cfg->dir, folders[i]);
        rc = fs_mkdir_p(path, e);
    }
    if (rc < 0 || (rc = lock_dir(cfg->dir, &lock, e)) < 0)
        return rc;
    rc = start_coordinator(cfg, talk, e);
    if (rc == 0)
        rc = start_workers(cfg, talk, e);
    close(lock);
    return rc;
}

/* Wait until process and zombie are gone; SIGKILL in the end. */
static bool ended(long pid, const char *name, FILE *talk)
{
    for (double end = now_s() + STOP_S; now_s() < end; nap_ms(20))
        if (!alive(pid, program_of(name)))
            return true;
    if (talk)
        fprintf(talk, "%s (process %ld) does not stop; killed\n", name, pid);
    kill((pid_t)pid, SIGKILL);
    for (double end = now_s() + 5; now_s() < end; nap_ms(20))
        if (!alive(pid, program_of(name)))
            return true;
    return false;
}

static void forget(const char *dir, const char *name)
{
    char path[FS_PATH_MAX], part[64];
    snprintf(part, sizeof part, "run/%s.pid", name);
    in_dir(path, dir, part);
    unlink(path);
}

int local_stop(const char *dir, int *stopped, FILE *talk, struct errbuf *e)
{
    struct local_state st;
    char run[FS_PATH_MAX];
    int lock, rc = 0;
    *stopped = 0;
    in_dir(run, dir, "run");
    if (!fs_is_dir(run))
        return 0;
    if ((rc = lock_dir(dir, &lock, e)) < 0)
        return rc;
    local_look(dir, &st);
    for (int i = 0; i < st.n_workers; i++)
        kill((pid_t)st.worker[i].pid, SIGTERM);
    for (int i = 0; i < st.n_workers; i++) { /* workers first: they deliver what they have */
        if (!ended(st.worker[i].pid, st.worker[i].name, talk))
            rc = err_set(e, ERR_FAILED, "process %ld (%s) cannot be stopped", st.worker[i].pid, st.worker[i].name);
        forget(dir, st.worker[i].name);
        ++*stopped;
    }
    if (st.coordinator) {
        kill((pid_t)st.coordinator, SIGTERM);
        if (!ended(st.coordinator, "didactd", talk))
            rc = err_set(e, ERR_FAILED, "process %ld (didactd) cannot be stopped", st.coordinator);
        forget(dir, "didactd");
        ++*stopped;
    }
    close(lock);
    return rc;
}
