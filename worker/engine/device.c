#include "worker/engine/device.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Where the shared object may lie: named by the user, beside the program, where `make install` puts it. */
static void *open_backend(const char *kind, char *path, size_t cap)
{
    const int family = (int)strcspn(kind, "-");
    char exe[PATH_MAX], env[64], *named;
    snprintf(env, sizeof env, "DIDACT_%.*s", family, kind);
    for (char *c = env + 7; *c; c++)
        if (*c >= 'a' && *c <= 'z')
            *c = (char)(*c - 'a' + 'A');
    if ((named = getenv(env)) && named[0]) {
        snprintf(path, cap, "%s", named);
        return dlopen(path, RTLD_NOW | RTLD_LOCAL);
    }
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    exe[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(exe, '/');
    if (slash)
        *slash = '\0';
    static const char *const place[] = { "", "/../lib/didact" };
    for (size_t i = 0; i < sizeof place / sizeof place[0]; i++) {
        snprintf(path, cap, "%s%s/didact-%.*s.so", exe, place[i], family, kind);
        if (access(path, R_OK) == 0)
            return dlopen(path, RTLD_NOW | RTLD_LOCAL);
    }
    snprintf(path, cap, "didact-%.*s.so", family, kind);
    return NULL;
}

const struct device *device_find(const char *kind, int number, struct errbuf *e)
{
    char path[PATH_MAX + 64];
    void *so = open_backend(kind, path, sizeof path);
    if (!so) {
        const char *why = dlerror();
        err_set(e, ERR_UNAVAILABLE, "no %s backend: %s", kind, why ? why : "didact-cuda.so is not beside the program (make CUDA=1 builds it)");
        return NULL;
    }
    device_entry entry;
    void *symbol = dlsym(so, DEVICE_ENTRY); /* ISO C has no conversion from an object's address to a function's */
    memcpy(&entry, &symbol, sizeof entry);
    if (!symbol) {
        err_set(e, ERR_UNAVAILABLE, "%s is no backend of Didact", path);
        dlclose(so);
        return NULL;
    }
    const struct device *d = entry(DEVICE_ABI, number, e, kind); /* stays loaded for as long as the process lives */
    if (!d)
        dlclose(so);
    return d;
}

int device_open(const char *text, const struct device **out, struct errbuf *e)
{
    static const char *const kinds[] = { "cuda", "cuda-tf32", "cuda-bf16" };
    const size_t at = strcspn(text, ":");
    char *end = "";
    long number = text[at] ? strtol(text + at + 1, &end, 10) : 0;
    *out = NULL;
    if (strcmp(text, "cpu") == 0)
        return 0;
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        struct errbuf why = { 0 };
        if (strlen(kinds[i]) != at || strncmp(text, kinds[i], at) != 0 || (text[at] && (end == text + at + 1 || *end)) || number < 0 || number > 1000)
            continue;
        if (!(*out = device_find(kinds[i], (int)number, &why)))
            return err_set(e, (enum err)why.code, "%s", why.text);
        return 0;
    }
    return err_set(e, ERR_USAGE, "device '%s' is not known (cpu, cuda, cuda-tf32, cuda-bf16; cuda:N is the N-th GPU)", text);
}
