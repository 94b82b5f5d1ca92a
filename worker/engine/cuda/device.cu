// device.cu - didact-cuda.so's one export: the device's table, its memory, its stream, recorded work as CUDA graphs.
#include "common.cuh"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char name[256];
static int  chosen = -1; // one GPU a process
static bool reads_host; // it can read the host's pages by itself: nobody promises then that a copy from them is staged

// Which GPU a thread speaks to is the thread's own setting.
static void here(void)
{
    static thread_local bool set;
    if (!set)
        cudaSetDevice(chosen);
    set = true;
}

static const char *device_name(void) { return name; }

// Memory comes from the driver's pool, where it has one, by a queue that does nothing else: cudaFree may wait for all that the GPU is doing, which
// is what other threads gave it. The pool keeps an eighth of the memory at most; what it keeps counts as free here, and it gives way where room is short.
static cudaMemPool_t pool; // NULL: there is none
static cudaStream_t  memory;

static void pool_open(const cudaDeviceProp *p)
{
    uint64_t keep = p->totalGlobalMem / 8;
    int there = 0;
    if (cudaDeviceGetAttribute(&there, cudaDevAttrMemoryPoolsSupported, chosen) != cudaSuccess || !there || cudaStreamCreateWithFlags(&memory, cudaStreamNonBlocking) != cudaSuccess)
        return;
    if (cudaDeviceGetDefaultMemPool(&pool, chosen) != cudaSuccess || cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep) != cudaSuccess)
        pool = NULL;
    cudaGetLastError();
}

static uint64_t free_bytes(void)
{
    size_t free = 0, total = 0;
    uint64_t held = 0, used = 0;
    here();
    if (cudaMemGetInfo(&free, &total) != cudaSuccess)
        return 0;
    if (pool && cudaMemPoolGetAttribute(pool, cudaMemPoolAttrReservedMemCurrent, &held) == cudaSuccess &&
        cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used) == cudaSuccess && held > used)
        free += held - used;
    return free;
}

static void *alloc(uint64_t bytes)
{
    void *p = NULL;
    here();
    cudaError_t rc = pool ? cudaMallocAsync(&p, bytes, memory) : cudaMalloc(&p, bytes);
    if (rc == cudaSuccess && pool)
        rc = cudaStreamSynchronize(memory); // from now on it is every queue's
    if (rc != cudaSuccess) {
        cudaGetLastError(); // said by the caller; the next call shall not find it
        return NULL;
    }
    return p;
}
static void release(void *p)
{
    here();
    if (pool)
        cudaFreeAsync(p, memory);
    else
        cudaFree(p);
}
// An error of one call is forgotten by then; one that stays (an illegal address, a GPU that fell off its bus) is that of every call which asks the context.
// cudaFree(0) need not ask it, and cudaDeviceSynchronize fails, and spoils the work, while another thread records a graph.
static bool works(void)
{
    size_t free, total;
    here();
    cudaGetLastError();
    return cudaMemGetInfo(&free, &total) == cudaSuccess;
}

static void *queue_new(void)
{
    cudaStream_t s;
    here();
    return cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking) == cudaSuccess ? (void *)s : NULL;
}
static void queue_free(void *q) { cudaStreamDestroy((cudaStream_t)q); }

static void after(void *q, void *earlier)
{
    cudaEvent_t done;
    here();
    if (cudaEventCreateWithFlags(&done, cudaEventDisableTiming) != cudaSuccess)
        return; // get() tells
    cudaEventRecord(done, (cudaStream_t)earlier);
    cudaStreamWaitEvent((cudaStream_t)q, done, 0);
    cudaEventDestroy(done); // its memory goes when it has happened
}

static void put(void *q, void *dst, const void *host, uint64_t bytes)
{
    here();
    cudaMemcpyAsync(dst, host, bytes, cudaMemcpyHostToDevice, (cudaStream_t)q); // of pageable memory: staged before it returns
    if (reads_host)
        cudaStreamSynchronize((cudaStream_t)q);
}
static void wait(void *q)
{
    here();
    cudaStreamSynchronize((cudaStream_t)q);
}
static int get(void *q, void *host, const void *src, uint64_t bytes, errbuf *e)
{
    here();
    cudaMemcpyAsync(host, src, bytes, cudaMemcpyDeviceToHost, (cudaStream_t)q);
    cudaError_t rc = cudaStreamSynchronize((cudaStream_t)q);
    if (rc == cudaSuccess)
        rc = cudaGetLastError();
    if (rc == cudaSuccess)
        return 0;
    if (e) {
        e->code = ERR_UNAVAILABLE;
        snprintf(e->text, sizeof e->text, "%s: %s", name, cudaGetErrorString(rc));
    }
    return -ERR_UNAVAILABLE;
}

// Not recorded is no failure: the work runs as it is queued then, and get() shall not find what refused it.
static bool begin(void *q)
{
    if (cudaStreamBeginCapture((cudaStream_t)q, cudaStreamCaptureModeThreadLocal) == cudaSuccess)
        return true;
    cudaGetLastError();
    return false;
}
static void *end(void *q)
{
    cudaGraph_t graph;
    cudaGraphExec_t run = NULL;
    if (cudaStreamEndCapture((cudaStream_t)q, &graph) == cudaSuccess) {
        if (cudaGraphInstantiateWithFlags(&run, graph, 0) != cudaSuccess)
            run = NULL;
        cudaGraphDestroy(graph);
    }
    if (!run)
        cudaGetLastError();
    return (void *)run;
}
static void play(void *q, void *recorded) { cudaGraphLaunch((cudaGraphExec_t)recorded, (cudaStream_t)q); }
static void forget(void *recorded) { cudaGraphExecDestroy((cudaGraphExec_t)recorded); }

__global__ static void probe(void) {} // there where the backend has code for a GPU

// A kind of device each: what is computed with other factors is another score.
static const struct { const char *kind; int least; } kinds[ROUNDINGS] = { { "cuda", 70 }, { "cuda-tf32", 80 }, { "cuda-bf16", 80 } };

extern "C" const struct device *didact_device(int abi, int number, struct errbuf *e, const char *kind)
{
    static device made[ROUNDINGS];
    cudaDeviceProp p;
    int n = 0, k = 0;
    if (abi != DEVICE_ABI) {
        e->code = ERR_VERSION;
        snprintf(e->text, sizeof e->text, "the GPU backend speaks version %d, this program %d: build both from one source", DEVICE_ABI, abi);
        return NULL;
    }
    while (k < ROUNDINGS && strcmp(kinds[k].kind, kind) != 0)
        k++;
    if (k == ROUNDINGS) {
        e->code = ERR_UNAVAILABLE;
        snprintf(e->text, sizeof e->text, "the GPU backend has no device of kind %s", kind);
        return NULL;
    }
    if (cudaGetDeviceCount(&n) == cudaSuccess && number < n && chosen >= 0 && number != chosen) {
        e->code = ERR_UNAVAILABLE;
        snprintf(e->text, sizeof e->text, "this process has GPU %d already: one GPU a process", chosen);
        return NULL;
    }
    if (n == 0 || number < 0 || number >= n || cudaSetDevice(number) != cudaSuccess || cudaGetDeviceProperties(&p, number) != cudaSuccess) {
        e->code = ERR_UNAVAILABLE;
        snprintf(e->text, sizeof e->text, n > 0 ? "there is no GPU %d: this machine has %d" : "this machine has no usable NVIDIA GPU", number, n);
        return NULL;
    }
    if (p.major * 10 + p.minor < kinds[k].least) {
        e->code = ERR_UNAVAILABLE;
        snprintf(e->text, sizeof e->text, "%s has compute capability %d.%d: %s needs %d.%d", p.name, p.major, p.minor, kind, kinds[k].least / 10, kinds[k].least % 10);
        return NULL;
    }
    cudaFuncAttributes code;
    const cudaError_t rc = cudaFuncGetAttributes(&code, probe);
    if (rc != cudaSuccess) {
        cudaGetLastError();
        e->code = ERR_UNAVAILABLE;
        if (rc == cudaErrorNoKernelImageForDevice || rc == cudaErrorInvalidDeviceFunction)
            snprintf(e->text, sizeof e->text, "the GPU backend was not built for %s, compute capability %d.%d (make CUDA=1 CUDA_CC=%d%d)", p.name, p.major, p.minor, p.major, p.minor);
        else
            snprintf(e->text, sizeof e->text, "%s: %s", p.name, cudaGetErrorString(rc));
        return NULL;
    }
    snprintf(name, sizeof name, "%s", p.name);
    if (chosen < 0) {
        chosen = number;
        pool_open(&p);
    }
    reads_host = p.pageableMemoryAccess;
    device &d = made[k];
    d.abi = DEVICE_ABI;
    d.kind = kinds[k].kind;
    d.name = device_name;
    d.free_bytes = free_bytes;
    d.works = works;
    d.alloc = alloc;
    d.release = release;
    d.queue_new = queue_new;
    d.queue_free = queue_free;
    d.after = after;
    d.put = put;
    d.wait = wait;
    d.get = get;
    d.begin = begin;
    d.end = end;
    d.play = play;
    d.forget = forget;
    rules_conv(&d, (rounding)k);
    rules_dwconv(&d);
    rules_bn(&d);
    rules_pointwise(&d);
    rules_pool(&d);
    rules_shape(&d);
    rules_weights(&d);
    rules_loss(&d);
    rules_optim(&d);
    rules_vector(&d);
    return &d;
}
