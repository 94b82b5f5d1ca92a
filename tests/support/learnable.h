/* learnable.h - a small synthetic dataset that any learner can learn, and a task_env for tests.
 * Class k of 4 brightens the k-th quadrant of an image, under noise. Everything asserts instead of failing. */
#ifndef DIDACT_TESTS_LEARNABLE_H
#define DIDACT_TESTS_LEARNABLE_H

#include "tests/support/tmp.h"
#include "worker/task.h"

#define LEARNABLE_SIDE    8
#define LEARNABLE_CLASSES 4

/* Write it (600 images to train and validate on, 120 test images); its hash. */
void learnable_write(const char *path, hash_str hash);
/* A curriculum of T x B of its train images with this step size, momentum 0.5. */
void learnable_curriculum(const char *dataset, const char *path, int T, int B, double lr, hash_str hash);

/* Blobs by hash, a cancel after so many polls, and what was uploaded: files stay in the folder under kind-HASH. */
struct desk {
    struct tmp *tmp;
    hash_str    hash[8];
    char        path[8][512];
    int         n;
    int         polls_left;     /* cancelled() turns true when it reaches 0; negative: never */
    int         n_progress;
    struct task_progress last;
    char        work[300];
    struct task_env env;
};
void desk_init(struct desk *d, struct tmp *t, int threads);
void desk_add(struct desk *d, const char *hash, const char *path);
const char *desk_path(struct desk *d, const char *hash); /* NULL: none such */

#endif
