#include "worker/cmd.h"

#include "worker/case.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

static const char USAGE[] =
    "Example: didact-worker grad --case NAME.json --tensors NAME.f32.safetensors --out RESULT.safetensors\n"
    "\n"
    "Compute one outer step of meta-training and compare it with what the tensors file expects.\n"
    "  --case FILE      the network, the sizes, the names of inputs and outputs (JSON)\n"
    "  --tensors FILE   inputs and expected outputs; the dtype of w0.* chooses float32 or float64\n"
    "  --out FILE       write what was computed (same bytes for any --threads)\n"
    "  --threads N      threads to use, default 1\n"
    "  --device NAME    cpu (default), cuda, cuda:1, cuda-tf32 …: of float32 tensors alone\n"
    "DIDACT_ISA=portable|avx2|avx512|neon caps the kernels.\n"
    "Exit: 0 within tolerance, 1 not, 65 the case cannot be read, 69 that instruction set or device is not available.\n";

static int fail(const struct errbuf *e, int rc)
{
    fprintf(stderr, "didact-worker grad: %s\n", err_message(e, rc));
    return err_exit_status(rc);
}

static int compute(const char *json, const char *tensors, const char *out, int threads, const struct device *device)
{
    struct errbuf e = { 0 };
    struct gcase c;
    int rc = case_load(&c, json, tensors, &e), status;
    bool good = false;
    /* Whatever keeps a case from being read is bad input here, a missing file too. */
    if (rc < 0 && rc != -ERR_NOMEM && rc != -ERR_INTERNAL) {
        fail(&e, rc);
        case_fini(&c);
        return err_exit_status(ERR_INPUT);
    }
    if (rc == 0 && (rc = case_compute(&c, threads, device, &e)) == 0) {
        good = case_report(&c, stdout);
        if (c.diverged)
            fprintf(stderr, "didact-worker grad: %s\n", err_message(&c.why, -ERR_DIVERGED));
        if (out)
            rc = case_write(&c, out, &e);
    }
    if (rc == 0 && fflush(stdout) != 0)
        rc = err_set(&e, ERR_IO, "cannot write to standard output");
    status = rc < 0 ? fail(&e, rc) : good ? 0 : 1;
    case_fini(&c);
    return status;
}

int cmd_grad(int argc, char **argv)
{
    static const struct option opts[] = { { "case", required_argument, NULL, 'c' }, { "tensors", required_argument, NULL, 't' },
                                          { "out", required_argument, NULL, 'o' }, { "threads", required_argument, NULL, 'n' },
                                          { "device", required_argument, NULL, 'd' }, { "help", no_argument, NULL, 'h' }, { 0 } };
    const char *json = NULL, *tensors = NULL, *out = NULL, *where = "cpu";
    const struct device *device;
    int threads = 1, o;
    struct errbuf e = { 0 };
    optind = 1;
    while ((o = getopt_long(argc, argv, "", opts, NULL)) != -1) {
        char *end = NULL;
        switch (o) {
        case 'c': json = optarg; break;
        case 't': tensors = optarg; break;
        case 'o': out = optarg; break;
        case 'd': where = optarg; break;
        case 'n':
            threads = (int)strtol(optarg, &end, 10);
            if (*end || end == optarg || threads < 1 || threads > 1024) {
                fprintf(stderr, "didact-worker grad: --threads: must be from 1 to 1024\n");
                return err_exit_status(ERR_USAGE);
            }
            break;
        case 'h': fputs(USAGE, stdout); return 0;
        default: fputs(USAGE, stderr); return err_exit_status(ERR_USAGE);
        }
    }
    if (!json || !tensors || optind < argc) {
        fputs(USAGE, stderr);
        return err_exit_status(ERR_USAGE);
    }
    int rc = eng_init(getenv("DIDACT_ISA"), &e);
    if (rc == 0)
        rc = device_open(where, &device, &e);
    return rc < 0 ? fail(&e, rc) : compute(json, tensors, out, threads, device);
}
