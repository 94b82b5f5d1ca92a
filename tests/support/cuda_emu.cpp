#include "tests/support/cuda_emu.h"

#include <math.h>
#include <pthread.h>
#include <ucontext.h>

emu_state emu;

enum { STACK = 64 << 10, MOST = 1024 };

// A fiber is made once and then runs a thread of one block after the other. The jumps are the compiler's own: no system call, and
// nothing that a sanitizer would follow onto another stack.
struct fiber { void *at[5]; ucontext_t first; char *stack; bool done; };
static fiber     fibers[MOST];
static void     *boss[5];
static unsigned  self;
static emu_call *running;

__attribute__((noinline)) static void jump(void **to) { __builtin_longjmp(to, 1); }

__attribute__((noinline)) void emu_wait(void)
{
    if (__builtin_setjmp(fibers[self].at) == 0)
        jump(boss);
}

static void fiber_main(void)
{
    for (;;) {
        running->thread();
        fibers[self].done = true;
        emu_wait();
    }
}

static void place(const dim3 &block, unsigned i) { threadIdx = dim3(i % block.x, i / block.x % block.y, i / block.x / block.y); }

__attribute__((noinline)) static void resume(const dim3 &block, unsigned i)
{
    fiber &f = fibers[i];
    place(block, i);
    self = i;
    emu.in_fiber = true;
    if (__builtin_setjmp(boss) == 0) {
        if (f.stack)
            jump(f.at);
        f.stack = (char *)malloc(STACK);
        getcontext(&f.first);
        f.first.uc_stack.ss_sp = f.stack;
        f.first.uc_stack.ss_size = STACK;
        makecontext(&f.first, fiber_main, 0);
        setcontext(&f.first);
    }
    emu.in_fiber = false;
}

static void start(const dim3 &block, unsigned i)
{
    fibers[i].done = false;
    resume(block, i);
}

// All threads to their next wait, or their end; until none is left.
static void run_block(emu_call *c, bool *plain)
{
    const unsigned n = c->block.x * c->block.y * c->block.z;
    assert(n <= MOST);
    unsigned i = 0;
    if (!*plain) {
        start(c->block, i++);
        *plain = fibers[0].done; // it never waited
    }
    for (; *plain && i < n; i++) {
        place(c->block, i);
        c->thread();
    }
    if (*plain)
        return;
    for (; i < n; i++)
        start(c->block, i);
    for (bool any = true; any;) {
        any = false;
        for (i = 0; i < n; i++)
            if (!fibers[i].done) {
                resume(c->block, i);
                any = true;
            }
    }
}

static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;

void emu_call::run()
{
    bool plain = false;
    pthread_mutex_lock(&one_at_a_time);
    running = this;
    blockDim = block;
    gridDim = grid;
    for (unsigned z = 0; z < grid.z; z++)
        for (unsigned y = 0; y < grid.y; y++)
            for (unsigned x = 0; x < grid.x; x++) {
                blockIdx = dim3(x, y, z);
                run_block(this, &plain);
            }
    pthread_mutex_unlock(&one_at_a_time);
}

// EMU_COUNT=1 says at the end how many launches there were, done at once or recorded: what a real GPU's time goes to where they are small.
static long launches;
static void say_launches(void) { fprintf(stderr, "%ld launches\n", launches); }

void emu_queue(emu_call *c, dim3 grid, dim3 block, void *queue)
{
    emu_stream *s = (emu_stream *)queue;
    if (launches++ == 0 && getenv("EMU_COUNT"))
        atexit(say_launches);
    assert(grid.y <= 65535 && grid.z <= 65535 && (uint64_t)block.x * block.y * block.z <= 1024); // what a GPU refuses
    c->grid = grid;
    c->block = block;
    c->next = NULL;
    if (s->capturing) {
        *s->last = c;
        s->last = &c->next;
        return;
    }
    c->run();
    delete c;
}

cudaError_t cudaMalloc(void **p, size_t bytes)
{
    if (bytes > EMU_MEMORY || emu_health(false) != cudaSuccess)
        return cudaErrorUnknown;
    float *f = (float *)aligned_alloc(256, (bytes + 255) & ~(size_t)255);
    for (size_t i = 0; f && i < bytes / sizeof *f; i++)
        f[i] = NAN;
    *p = f;
    return f ? cudaSuccess : cudaErrorUnknown;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, int, cudaStream_t s)
{
    assert(!s->capturing);
    memcpy(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g)
{
    s->capturing = false;
    *g = s->first;
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t) { return cudaSuccess; } // the executable has it
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t g)
{
    while (g) {
        emu_call *next = g->next;
        delete g;
        g = next;
    }
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t g, cudaStream_t)
{
    for (; g; g = g->next)
        g->run();
    return cudaSuccess;
}
