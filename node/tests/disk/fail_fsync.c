/* Preloaded into a node: one fsync or fdatasync fails with EIO, the one of number FAIL_FSYNC_AT since the file
 * FAIL_FSYNC_FROM was there. Those after it succeed, as the kernel of the machine reports such a failure once. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

static atomic_int seen;

static int fails(void) {
    const char *from = getenv("FAIL_FSYNC_FROM");
    const char *at = getenv("FAIL_FSYNC_AT");
    if (from == NULL || at == NULL || access(from, F_OK) != 0)
        return 0;
    return atomic_fetch_add(&seen, 1) + 1 == atoi(at);
}

static int call(const char *name, int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    if (fails()) {
        errno = EIO;
        return -1;
    }
    return real(fd);
}

int fsync(int fd) { return call("fsync", fd); }

int fdatasync(int fd) { return call("fdatasync", fd); }
