/* A static program for steps of the soak test: ways to look at files that no shell command has.
   What it prints depends on the files alone. Usage: probe WHAT ARGUMENT... */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

static void bytes(const char *name, const unsigned char *data, size_t len)
{
    uint64_t h = 1469598103934665603u;
    for (size_t i = 0; i < len; i++)
        h = (h ^ data[i]) * 1099511628211u;
    printf("%s %zu %016llx\n", name, len, (unsigned long long)h);
}

static int failed(const char *name)
{
    printf("%s: errno %d\n", name, errno);
    return 0;
}

static int read_fd(const char *name, int fd)
{
    static __thread unsigned char buffer[1 << 16];
    size_t len = 0;
    ssize_t got;
    if (fd < 0)
        return failed(name);
    while (len < sizeof buffer && (got = read(fd, buffer + len, sizeof buffer - len)) > 0)
        len += got;
    close(fd);
    bytes(name, buffer, len);
    return 0;
}

static int do_mmap(const char *name)
{
    struct stat st;
    int fd = open(name, O_RDONLY);
    if (fd < 0 || fstat(fd, &st))
        return failed(name);
    if (st.st_size == 0)
        return printf("%s empty\n", name), 0;
    void *at = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (at == MAP_FAILED)
        return failed(name);
    bytes(name, at, st.st_size);
    return 0;
}

/* Opens without reading, then looks at it and reads it through the descriptor. */
static int do_opath(const char *name)
{
    struct stat st;
    char again[64];
    int fd = open(name, O_PATH | O_NOFOLLOW);
    if (fd < 0 || fstatat(fd, "", &st, AT_EMPTY_PATH))
        return failed(name);
    printf("%s mode %o\n", name, st.st_mode);
    if (!S_ISREG(st.st_mode))
        return 0;
    snprintf(again, sizeof again, "/proc/self/fd/%d", fd);
    return read_fd(name, open(again, O_RDONLY));
}

/* Relative to a directory, never out of it. */
static int do_beneath(const char *dir, const char *name)
{
    struct open_how how = {.flags = O_RDONLY, .resolve = RESOLVE_BENEATH};
    int at = open(dir, O_DIRECTORY | O_RDONLY), fd;
    if (at < 0)
        return failed(dir);
    /* A rename anywhere on the machine, at the same time, makes it unsure about `..`. */
    do
        fd = syscall(SYS_openat2, at, name, &how, sizeof how);
    while (fd < 0 && errno == EAGAIN);
    return read_fd(name, fd);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names and kinds as the directory tells them, nothing looked up. */
static int do_list(const char *dir)
{
    char *names[1024], line[300];
    int count = 0;
    DIR *d = opendir(dir);
    struct dirent *e;
    if (!d)
        return failed(dir);
    while (count < 1024 && (e = readdir(d))) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        snprintf(line, sizeof line, "%s %d", e->d_name, e->d_type);
        names[count++] = strdup(line);
    }
    closedir(d);
    qsort(names, count, sizeof *names, by_name);
    for (int i = 0; i < count; i++)
        puts(names[i]);
    return 0;
}

static int do_stat(const char *name)
{
    struct stat st;
    if (lstat(name, &st))
        return failed(name);
    printf("%s %o %u:%u", name, st.st_mode, st.st_uid, st.st_gid);
    if (!S_ISDIR(st.st_mode))
        printf(" %lld bytes %u names", (long long)st.st_size, (unsigned)st.st_nlink);
    putchar('\n');
    return 0;
}

/* To the nanosecond: busybox's -nt and -newer compare whole seconds. */
static int do_newer(const char *a, const char *b)
{
    struct stat x, y;
    if (stat(a, &x))
        return failed(a);
    if (stat(b, &y))
        return failed(b);
    int later = x.st_mtim.tv_sec != y.st_mtim.tv_sec ? x.st_mtim.tv_sec > y.st_mtim.tv_sec
                                                     : x.st_mtim.tv_nsec > y.st_mtim.tv_nsec;
    printf("%s is %s than %s\n", a, later ? "newer" : "not newer", b);
    return 0;
}

static int do_xattrs(const char *name)
{
    char list[4096], value[4096], *names[64];
    int count = 0;
    ssize_t len = llistxattr(name, list, sizeof list);
    if (len < 0)
        return failed(name);
    for (char *at = list; at < list + len && count < 64; at += strlen(at) + 1)
        if (!strncmp(at, "user.", 5))
            names[count++] = at;
    qsort(names, count, sizeof *names, by_name);
    for (int i = 0; i < count; i++) {
        len = lgetxattr(name, names[i], value, sizeof value);
        printf("%s %s=%.*s\n", name, names[i], (int)(len < 0 ? 0 : len), value);
    }
    return 0;
}

struct job {
    const char *name;
    char text[300];
    pthread_t thread;
};

static void *in_thread(void *arg)
{
    struct job *job = arg;
    struct stat st;
    unsigned char buffer[4096];
    ssize_t len;
    int fd;
    if (stat(job->name, &st) || (fd = open(job->name, O_RDONLY)) < 0) {
        snprintf(job->text, sizeof job->text, "%s: errno %d", job->name, errno);
        return NULL;
    }
    len = read(fd, buffer, sizeof buffer);
    unsigned sum = 0;
    for (ssize_t i = 0; i < len; i++)
        sum = sum * 31 + buffer[i];
    snprintf(job->text, sizeof job->text, "%s %zd %08x", job->name, len, sum);
    close(fd);
    return NULL;
}

static int do_threads(int count, char **names)
{
    struct job jobs[64];
    if (count > 64)
        count = 64;
    for (int i = 0; i < count; i++) {
        jobs[i].name = names[i];
        if (pthread_create(&jobs[i].thread, NULL, in_thread, &jobs[i]))
            return 1;
    }
    for (int i = 0; i < count; i++) {
        pthread_join(jobs[i].thread, NULL);
        puts(jobs[i].text);
    }
    return 0;
}

/* Opens, looks at and reads a file by io_uring alone: one operation after the other. */
static struct {
    int fd;
    unsigned *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
    struct io_uring_sqe *sqes;
    struct io_uring_cqe *cqes;
} ring;

static int ring_open(void)
{
    struct io_uring_params p = {0};
    ring.fd = syscall(SYS_io_uring_setup, 4, &p);
    if (ring.fd < 0)
        return -1;
    size_t sq_len = p.sq_off.array + p.sq_entries * sizeof(unsigned);
    size_t cq_len = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    char *sq = mmap(0, sq_len, PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, IORING_OFF_SQ_RING);
    char *cq = mmap(0, cq_len, PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd, IORING_OFF_CQ_RING);
    ring.sqes = mmap(0, p.sq_entries * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE, MAP_SHARED, ring.fd,
                     IORING_OFF_SQES);
    if (sq == MAP_FAILED || cq == MAP_FAILED || ring.sqes == MAP_FAILED)
        return -1;
    ring.sq_tail = (unsigned *)(sq + p.sq_off.tail);
    ring.sq_mask = (unsigned *)(sq + p.sq_off.ring_mask);
    ring.sq_array = (unsigned *)(sq + p.sq_off.array);
    ring.cq_head = (unsigned *)(cq + p.cq_off.head);
    ring.cq_tail = (unsigned *)(cq + p.cq_off.tail);
    ring.cq_mask = (unsigned *)(cq + p.cq_off.ring_mask);
    ring.cqes = (struct io_uring_cqe *)(cq + p.cq_off.cqes);
    return 0;
}

static int ring_do(struct io_uring_sqe op)
{
    unsigned tail = *ring.sq_tail, at = tail & *ring.sq_mask;
    ring.sqes[at] = op;
    ring.sq_array[at] = at;
    __atomic_store_n(ring.sq_tail, tail + 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, ring.fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
        return -errno;
    unsigned head = *ring.cq_head;
    int result = ring.cqes[head & *ring.cq_mask].res;
    __atomic_store_n(ring.cq_head, head + 1, __ATOMIC_RELEASE);
    return result;
}

static int do_uring(const char *name)
{
    static unsigned char buffer[1 << 16];
    struct statx st;
    int fd, got;
    struct io_uring_sqe open_op = {.opcode = IORING_OP_OPENAT, .fd = AT_FDCWD, .addr = (uintptr_t)name};
    struct io_uring_sqe stat_op = {.opcode = IORING_OP_STATX, .fd = AT_FDCWD, .addr = (uintptr_t)name,
                                   .len = STATX_MODE | STATX_SIZE, .off = (uintptr_t)&st};
    if (!ring.sqes && ring_open())
        return printf("%s: no io_uring here\n", name), 0;
    got = ring_do(stat_op);
    if (got < 0)
        return printf("%s: uring statx %d\n", name, got), 0;
    printf("%s mode %o\n", name, st.stx_mode);
    fd = ring_do(open_op);
    if (fd < 0)
        return printf("%s: uring open %d\n", name, fd), 0;
    struct io_uring_sqe read_op = {.opcode = IORING_OP_READ, .fd = fd, .addr = (uintptr_t)buffer,
                                   .len = sizeof buffer};
    got = ring_do(read_op);
    if (got < 0)
        return printf("%s: uring read %d\n", name, got), 0;
    bytes(name, buffer, got);
    close(fd);
    return 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "exe")) {
        char path[4096];
        ssize_t len = readlink("/proc/self/exe", path, sizeof path - 1);
        path[len < 0 ? 0 : len] = 0;
        puts(path);
        return read_fd("exe", open("/proc/self/exe", O_RDONLY));
    }
    if (!strcmp(what, "has-uring"))
        return ring_open() ? 1 : 0;
    if (!strcmp(what, "threads"))
        return do_threads(argc - 2, argv + 2);
    if (!strcmp(what, "beneath") && argc > 3)
        return do_beneath(argv[2], argv[3]);
    if (!strcmp(what, "newer") && argc > 3)
        return do_newer(argv[2], argv[3]);
    if (!strcmp(what, "exchange") && argc > 3)
        return syscall(SYS_renameat2, AT_FDCWD, argv[2], AT_FDCWD, argv[3], 2) ? failed("exchange") : 0;
    if (!strcmp(what, "setxattr") && argc > 4)
        return lsetxattr(argv[2], argv[3], argv[4], strlen(argv[4]), 0) ? failed(argv[2]) : 0;
    for (int i = 2; i < argc; i++) {
        if (!strcmp(what, "mmap"))
            do_mmap(argv[i]);
        else if (!strcmp(what, "opath"))
            do_opath(argv[i]);
        else if (!strcmp(what, "list"))
            do_list(argv[i]);
        else if (!strcmp(what, "stat"))
            do_stat(argv[i]);
        else if (!strcmp(what, "xattrs"))
            do_xattrs(argv[i]);
        else if (!strcmp(what, "uring"))
            do_uring(argv[i]);
        else
            return 2;
    }
    return 0;
}
