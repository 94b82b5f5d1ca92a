#include "worker/cmd.h"

int cmd_device(const char *flag, enum device_class job, const struct device **out, struct errbuf *e)
{
    const bool any = !flag && job == DEVICE_ANY;
    int rc = device_open(flag ? flag : device_class_name(any ? DEVICE_CUDA : job), out, e);
    return any && (rc == -ERR_UNAVAILABLE || rc == -ERR_VERSION) ? 0 : rc;
}
