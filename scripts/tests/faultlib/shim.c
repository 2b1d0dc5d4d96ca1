// Makes one system call fail: the FAULT_N-th of the kind FAULT_KIND, counted over all threads and processes that were
// started with this library (LD_PRELOAD) and the same FAULT_STATE, a file of sizeof(struct state) bytes.
//
// Counted are calls on regular files and on internet sockets: what a store and a network client do. Standard streams,
// pipes, devices and the program's own channels are left alone.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { WRITE, SYNC, RENAME, READ, CREATE, REMOVE, CONNECT, SEND, RECV, KINDS };
static const char *const names[KINDS] = {"write", "sync",   "rename",  "read", "create",
                                         "remove", "connect", "send", "recv"};
static const int errors[KINDS] = {ENOSPC, EIO, EIO, EIO, ENOSPC, EIO, ECONNREFUSED, ECONNRESET, ECONNRESET};

struct state {
    atomic_long count[KINDS];
    atomic_long struck;
    char what[256];
};

static struct state *state;
static int wanted = -1;
static long nth;

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("FAULT_STATE"), *kind = getenv("FAULT_KIND"), *n = getenv("FAULT_N");
    if (!path) return;
    int (*own)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    int fd = own(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    void *at = mmap(NULL, sizeof(struct state), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at == MAP_FAILED) return;
    for (int i = 0; kind && i < KINDS; i++)
        if (!strcmp(kind, names[i])) wanted = i;
    nth = n ? atol(n) : 0;
    state = at;
}

// Whether this call is the one; errno is set then.
static int strikes(enum kind kind, int fd, const char *path) {
    if (!state) return 0;
    long n = atomic_fetch_add(&state->count[kind], 1) + 1;
    if ((int)kind != wanted || n != nth) return 0;
    char link[64], name[200] = "?";
    if (fd >= 0) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, name, sizeof name - 1);
        name[length > 0 ? length : 0] = 0;
    } else if (path) {
        snprintf(name, sizeof name, "%s", path);
    }
    snprintf(state->what, sizeof state->what, "%s", name);
    atomic_store(&state->struck, 1);
    errno = errors[kind];
    return 1;
}

static int is_file(int fd) {
    int before = errno;
    struct stat st;
    int yes = fd > 2 && !fstat(fd, &st) && S_ISREG(st.st_mode);
    errno = before;
    return yes;
}

static int is_internet(int fd) {
    int before = errno, domain = 0;
    socklen_t length = sizeof domain;
    int yes = !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) && (domain == AF_INET || domain == AF_INET6);
    errno = before;
    return yes;
}

// Writing and reading: on files one kind, on sockets another.
static int moves(int fd, enum kind file, enum kind socket) {
    if (is_file(fd)) return strikes(file, fd, NULL);
    return is_internet(fd) && strikes(socket, fd, NULL);
}

#define NEXT(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))
#define OWN(name)                                                                                                      \
    static typeof(&name) own;                                                                                          \
    if (!own) own = NEXT(name)
#define MOVE(result, name, parameters, arguments, file, socket)                                                        \
    result name parameters {                                                                                           \
        OWN(name);                                                                                                     \
        return moves(fd, file, socket) ? -1 : own arguments;                                                           \
    }

MOVE(ssize_t, write, (int fd, const void *b, size_t n), (fd, b, n), WRITE, SEND)
MOVE(ssize_t, pwrite, (int fd, const void *b, size_t n, off_t o), (fd, b, n, o), WRITE, SEND)
MOVE(ssize_t, pwrite64, (int fd, const void *b, size_t n, off64_t o), (fd, b, n, o), WRITE, SEND)
MOVE(ssize_t, writev, (int fd, const struct iovec *v, int n), (fd, v, n), WRITE, SEND)
MOVE(ssize_t, pwritev, (int fd, const struct iovec *v, int n, off_t o), (fd, v, n, o), WRITE, SEND)
MOVE(ssize_t, read, (int fd, void *b, size_t n), (fd, b, n), READ, RECV)
MOVE(ssize_t, pread, (int fd, void *b, size_t n, off_t o), (fd, b, n, o), READ, RECV)
MOVE(ssize_t, pread64, (int fd, void *b, size_t n, off64_t o), (fd, b, n, o), READ, RECV)
MOVE(ssize_t, readv, (int fd, const struct iovec *v, int n), (fd, v, n), READ, RECV)
MOVE(ssize_t, preadv, (int fd, const struct iovec *v, int n, off_t o), (fd, v, n, o), READ, RECV)
MOVE(ssize_t, send, (int fd, const void *b, size_t n, int f), (fd, b, n, f), WRITE, SEND)
MOVE(ssize_t, recv, (int fd, void *b, size_t n, int f), (fd, b, n, f), READ, RECV)
MOVE(int, ftruncate, (int fd, off_t n), (fd, n), WRITE, SEND)
MOVE(int, ftruncate64, (int fd, off64_t n), (fd, n), WRITE, SEND)
MOVE(int, fallocate, (int fd, int m, off_t o, off_t n), (fd, m, o, n), WRITE, SEND)
MOVE(int, fallocate64, (int fd, int m, off64_t o, off64_t n), (fd, m, o, n), WRITE, SEND)

ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t n, unsigned f) {
    OWN(copy_file_range);
    return is_file(out) && strikes(WRITE, out, NULL) ? -1 : own(in, from, out, to, n, f);
}

#define ON_FILE(name, kind)                                                                                            \
    int name(int fd) {                                                                                                 \
        OWN(name);                                                                                                     \
        return is_file(fd) && strikes(kind, fd, NULL) ? -1 : own(fd);                                                  \
    }
ON_FILE(fsync, SYNC)
ON_FILE(fdatasync, SYNC)

int connect(int fd, const struct sockaddr *a, socklen_t n) {
    OWN(connect);
    return is_internet(fd) && strikes(CONNECT, fd, NULL) ? -1 : own(fd, a, n);
}

#define ON_PATH(name, parameters, arguments, kind, path)                                                               \
    int name parameters {                                                                                              \
        OWN(name);                                                                                                     \
        return strikes(kind, -1, path) ? -1 : own arguments;                                                           \
    }
ON_PATH(rename, (const char *a, const char *b), (a, b), RENAME, b)
ON_PATH(renameat, (int d, const char *a, int e, const char *b), (d, a, e, b), RENAME, b)
ON_PATH(renameat2, (int d, const char *a, int e, const char *b, unsigned f), (d, a, e, b, f), RENAME, b)
ON_PATH(link, (const char *a, const char *b), (a, b), CREATE, b)
ON_PATH(linkat, (int d, const char *a, int e, const char *b, int f), (d, a, e, b, f), CREATE, b)
ON_PATH(symlink, (const char *a, const char *b), (a, b), CREATE, b)
ON_PATH(symlinkat, (const char *a, int d, const char *b), (a, d, b), CREATE, b)
ON_PATH(mkdir, (const char *a, mode_t m), (a, m), CREATE, a)
ON_PATH(mkdirat, (int d, const char *a, mode_t m), (d, a, m), CREATE, a)
ON_PATH(unlink, (const char *a), (a), REMOVE, a)
ON_PATH(unlinkat, (int d, const char *a, int f), (d, a, f), REMOVE, a)
ON_PATH(rmdir, (const char *a), (a), REMOVE, a)

#define OPENS(name, parameters, arguments, path)                                                                       \
    int name parameters {                                                                                              \
        OWN(name);                                                                                                     \
        mode_t mode = 0;                                                                                               \
        if (flags & (O_CREAT | O_TMPFILE)) {                                                                           \
            va_list list;                                                                                              \
            va_start(list, flags);                                                                                     \
            mode = va_arg(list, mode_t);                                                                               \
            va_end(list);                                                                                              \
        }                                                                                                              \
        return flags & O_CREAT && strikes(CREATE, -1, path) ? -1 : own arguments;                                      \
    }
OPENS(open, (const char *a, int flags, ...), (a, flags, mode), a)
OPENS(open64, (const char *a, int flags, ...), (a, flags, mode), a)
OPENS(openat, (int d, const char *a, int flags, ...), (d, a, flags, mode), a)
OPENS(openat64, (int d, const char *a, int flags, ...), (d, a, flags, mode), a)
