/* Tries to get out of a step's sandbox, or to change what lies outside of it. Each argument is one attempt, NAME or
 * NAME=VALUE; each is made in a process of its own, and a line says how it went: `NAME done`, the error by its name, or
 * the signal that ended it. `NAME nothing` is a file that is empty, or a place where nothing new is to be found.
 *
 * Whatever would succeed without a sandbox is chosen so that it does no harm: values are written as they were read, and
 * devices are only opened. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/perf_event.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/timex.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

/* What an attempt gives besides 0 (done) and an error's number. */
#define NOTHING (-1)

/* Where this process says how its attempt went. */
static int end_of_pipe = -1;

static long answer(long result) { return result < 0 ? errno : 0; }

static long number(const char *text) { return text ? strtol(text, NULL, 0) : 0; }

/* Mounts, and namespaces to mount in. */

static long mount_tmpfs(const char *v) { (void)v; return answer(mount("memobuild-escape", "/tmp", "tmpfs", 0, NULL)); }
static long mount_bind(const char *v) { (void)v; return answer(mount("/", "/tmp", NULL, MS_BIND, NULL)); }
static long mount_writable(const char *v) { return answer(mount(NULL, v, NULL, MS_REMOUNT | MS_BIND, NULL)); }
static long mount_shared(const char *v) { (void)v; return answer(mount(NULL, "/", NULL, MS_SHARED | MS_REC, NULL)); }
static long unmount(const char *v) { return answer(umount2(v, MNT_DETACH)); }
static long pivot(const char *v) { (void)v; return answer(syscall(SYS_pivot_root, "/tmp", "/tmp")); }
static long leave(const char *v) { return answer(unshare((int)number(v))); }
static long enter(const char *v) { return answer(setns(-1, (int)number(v))); }

static long clone_into(const char *v) {
    long pid = syscall(SYS_clone, number(v) | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) _exit(0);
    if (pid > 0) waitpid((pid_t)pid, NULL, 0);
    return answer(pid);
}

/* By number: newer than the headers of some machines, or of no use with proper arguments here. */
static long call(const char *v) { return answer(syscall(number(v), -1L, 0L, 0L, 0L, 0L, 0L)); }

/* A call by its 32-bit number, which a filter of 64-bit numbers alone would take for another. */
static long call32(const char *v) {
#ifdef __x86_64__
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number(v)), "b"(0L), "c"(0L), "d"(0L), "S"(0L), "D"(0L)
                     : "memory", "r8", "r9", "r10", "r11");
    return (int)result < 0 ? -(int)result : 0;
#else
    (void)v;
    return ENOSYS;
#endif
}

/* Processes. */

static long signal_to(const char *v) { return answer(kill((pid_t)number(v), SIGTERM)); }
static long attach(const char *v) { return answer(ptrace(PTRACE_ATTACH, (pid_t)number(v), NULL, NULL)); }
static long seize(const char *v) { return answer(ptrace(PTRACE_SEIZE, (pid_t)number(v), NULL, NULL)); }
static long pidfd(const char *v) { return answer(syscall(SYS_pidfd_open, (pid_t)number(v), 0)); }
static long slow_down(const char *v) { return answer(setpriority(PRIO_PROCESS, (id_t)number(v), 19)); }

static long read_process(const char *v) {
    char byte;
    struct iovec here = {&byte, 1}, there = {&here, 1};
    return answer(process_vm_readv((pid_t)number(v), &here, 1, &there, 1, 0));
}

static long write_process(const char *v) {
    char byte = 0;
    struct iovec here = {&byte, 1}, there = {&here, 1};
    return answer(process_vm_writev((pid_t)number(v), &here, 1, &there, 1, 0));
}

static long limit_process(const char *v) {
    struct rlimit limit;
    return answer(prlimit((pid_t)number(v), RLIMIT_NOFILE, NULL, &limit));
}

static long pin_process(const char *v) {
    cpu_set_t set;
    return answer(sched_getaffinity((pid_t)number(v), sizeof set, &set));
}

/* Files. Opened and left alone. */

static long open_for(const char *v, int flags) {
    int fd = open(v, flags | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0) close(fd);
    return answer(fd);
}

static long open_write(const char *v) { return open_for(v, O_WRONLY); }
static long open_read(const char *v) { return open_for(v, O_RDONLY); }
static long read_link(const char *v) {
    char to[4096];
    return answer(readlink(v, to, sizeof to));
}
static long make_directory(const char *v) { return answer(mkdir(v, 0755)); }

static long read_file(const char *v) {
    char bytes[64];
    int fd = open(v, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return errno;
    ssize_t count = read(fd, bytes, sizeof bytes);
    return count == 0 ? NOTHING : answer(count);
}

/* The kernel's log as a device node of one's own in this directory: it is there on every machine, is none of the nodes
 * that a step gets, and needs no capability to be opened for writing. */
static long device_in(const char *v) {
    char path[4096];
    snprintf(path, sizeof path, "%s/node", v);
    if (mknod(path, S_IFCHR | 0666, makedev(1, 11)) < 0) return errno;
    chmod(path, 0666);
    long result = open_for(path, O_WRONLY);
    unlink(path);
    return result;
}

/* A link to a file outside by way of an open descriptor, or by its name. */
static long hard_link(const char *v) { return answer(link(v, "/tmp/linked")); }

/* The way out. */

/* Whether a file of the machine is found from here, by its full name or by climbing. */
static long climb_to(const char *file) {
    char path[4096];
    if (access(file, F_OK) == 0) return 0;
    int length = 0;
    for (int n = 0; n < 64; n++) length += snprintf(path + length, sizeof path - (size_t)length, "../");
    snprintf(path + length, sizeof path - (size_t)length, "%s", file + 1);
    return access(path, F_OK) == 0 ? 0 : errno;
}

static long climb(const char *v) { return climb_to(v); }

/* The old trick: a second chroot while a descriptor, or the working directory, still lies above it. */
static long chroot_twice(const char *v) {
    mkdir("/tmp/below", 0755);
    int above = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (above < 0 || chroot("/tmp/below") < 0 || fchdir(above) < 0) return errno;
    for (int n = 0; n < 64; n++)
        if (chdir("..") < 0) return errno;
    if (chroot(".") < 0) return errno;
    return climb_to(v);
}

static long by_other_roots(const char *v) {
    static const char *const starts[] = {"/proc/1/root", "/proc/self/root", "/proc/1/cwd", "/proc/thread-self/root"};
    for (size_t n = 0; n < sizeof starts / sizeof *starts; n++)
        if (chdir(starts[n]) == 0 && climb_to(v) == 0) return 0;
    return ENOENT;
}

/* Descriptors that somebody left open, besides the standard streams. */
static long descriptors(const char *v) {
    (void)v;
    for (int fd = 3; fd < 1024; fd++)
        if (fd != end_of_pipe && fcntl(fd, F_GETFD) >= 0) return 0;
    return NOTHING;
}

/* Where this process is: an absolute path if its directory lies below its root. */
static long directory(const char *v) {
    char path[4096];
    long length = syscall(SYS_getcwd, path, sizeof path);
    if (length < 0) return errno;
    if (path[0] != '/') return 0;
    return climb_to(v);
}

/* Rights. */

static long gain_capability(const char *v) {
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct sets[2];
    int wanted = (int)number(v);
    if (syscall(SYS_capget, &head, sets) < 0) return errno;
    sets[wanted / 32].permitted |= 1u << wanted % 32;
    sets[wanted / 32].effective |= 1u << wanted % 32;
    return answer(syscall(SYS_capset, &head, sets));
}

static long ambient(const char *v) {
    return answer(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number(v), 0, 0));
}

/* Capabilities that a program brings along in its file. */
static long file_capability(const char *v) {
    /* Revision 2 with the effective bit, in the byte order that files have. */
    unsigned int words[5] = {0x02000001, 0, 0, 0, 0};
    int wanted = (int)number(v);
    words[1 + wanted / 32 * 2] = 1u << wanted % 32;
    const char *program = "/tmp/capable";
    if (access(program, F_OK) != 0 && system("cp /probe /tmp/capable && chmod 755 /tmp/capable") != 0) return EIO;
    if (setxattr(program, "security.capability", words, sizeof words, 0) < 0) return errno;
    execl(program, program, NULL);
    return errno;
}

/* Whether this process, or one that it becomes, could ever hold what is not in the set given as a mask. */
static long held_besides(const char *v) {
    unsigned long long allowed = strtoull(v ? v : "0", NULL, 16), sets[5];
    FILE *status = fopen("/proc/self/status", "r");
    char line[256];
    int found = 0;
    if (!status) return errno;
    while (fgets(line, sizeof line, status))
        if (strncmp(line, "Cap", 3) == 0 && found < 5) sets[found++] = strtoull(line + 8, NULL, 16);
    fclose(status);
    /* Inherited, permitted, effective, bounding, ambient. */
    for (int n = 0; n < found; n++)
        if (sets[n] & ~allowed) return 0;
    return found == 5 ? NOTHING : EIO;
}

static long raise_limit(const char *v) {
    (void)v;
    struct rlimit limit;
    if (getrlimit(RLIMIT_MEMLOCK, &limit) < 0) return errno;
    if (limit.rlim_max == RLIM_INFINITY) return NOTHING;
    limit.rlim_max++;
    return answer(setrlimit(RLIMIT_MEMLOCK, &limit));
}

static long real_time(const char *v) {
    (void)v;
    struct sched_param parameters = {.sched_priority = 1};
    return answer(sched_setscheduler(0, SCHED_FIFO, &parameters));
}

static long hurry(const char *v) { (void)v; return answer(setpriority(PRIO_PROCESS, 0, -20)); }

/* What belongs to the machine as a whole. Each is set to what it is. */

static long set_clock(const char *v) {
    (void)v;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return answer(clock_settime(CLOCK_REALTIME, &now));
}

static long tune_clock(const char *v) {
    (void)v;
    struct timex state = {.modes = 0};
    if (adjtimex(&state) < 0) return errno;
    state.modes = ADJ_TICK;
    return answer(adjtimex(&state));
}

static long set_name(const char *v) { return answer(sethostname(v, strlen(v))); }
static long set_domain(const char *v) { return answer(setdomainname(v, strlen(v))); }
static long kernel_log(const char *v) {
    (void)v;
    char bytes[16];
    return answer(syscall(SYS_syslog, 3, bytes, sizeof bytes));
}

static long interface_flags(const char *v) {
    struct ifreq request = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return errno;
    strncpy(request.ifr_name, v, sizeof request.ifr_name - 1);
    if (ioctl(fd, SIOCGIFFLAGS, &request) < 0) return errno;
    return answer(ioctl(fd, SIOCSIFFLAGS, &request));
}

/* Calls that reach into the kernel. */

static long key_add(const char *v) {
    return answer(syscall(SYS_add_key, "user", "memobuild-escape", v, strlen(v), -4));
}
static long key_request(const char *v) {
    return answer(syscall(SYS_request_key, "user", v, NULL, -4));
}
static long key_control(const char *v) { (void)v; return answer(syscall(SYS_keyctl, 0, -4, 0, 0, 0)); }

static long load_bpf(const char *v) {
    (void)v;
    union bpf_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.map_type = BPF_MAP_TYPE_ARRAY;
    attr.key_size = attr.value_size = 4;
    attr.max_entries = 1;
    return answer(syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof attr));
}

static long watch_events(const char *v) {
    (void)v;
    struct perf_event_attr attr;
    memset(&attr, 0, sizeof attr);
    attr.size = sizeof attr;
    attr.type = PERF_TYPE_SOFTWARE;
    attr.config = PERF_COUNT_SW_DUMMY;
    attr.exclude_kernel = attr.exclude_hv = 1;
    return answer(syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0));
}

static long ring(const char *v) {
    (void)v;
    char parameters[256] = {0};
    return answer(syscall(SYS_io_uring_setup, 1, parameters));
}

static long page_faults(const char *v) { (void)v; return answer(syscall(SYS_userfaultfd, 1 /* user mode only */)); }

/* A file by its number, found without any directory: how containers were left once. */
static long by_handle(const char *v) {
    struct { struct file_handle head; unsigned char bytes[128]; } handle = {.head = {.handle_bytes = 128}};
    int mount_id;
    int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    (void)v;
    if (name_to_handle_at(AT_FDCWD, "/", &handle.head, &mount_id, 0) < 0) {
        /* An overlay has no handles: any will do. */
        handle.head.handle_bytes = 8;
        handle.head.handle_type = 1;
        memcpy(handle.bytes, "\2\0\0\0\0\0\0\0", 8);
    }
    return answer(open_by_handle_at(root, &handle.head, O_RDONLY));
}

static long persona(const char *v) { return answer(personality((unsigned long)number(v))); }
static long family(const char *v) { return answer(socket((int)number(v), SOCK_STREAM | SOCK_CLOEXEC, 0)); }
static long family_packets(const char *v) { return answer(socket((int)number(v), SOCK_SEQPACKET | SOCK_CLOEXEC, 0)); }

/* Sockets of the machine. */

static long connect_port(const char *v) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((unsigned short)number(v))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return answer(connect(fd, (struct sockaddr *)&to, sizeof to));
}

static long connect_abstract(const char *v) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t length = strlen(v);
    if (length + 1 > sizeof to.sun_path) return ENAMETOOLONG;
    memcpy(to.sun_path + 1, v, length);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
    return answer(connect(fd, (struct sockaddr *)&to, size));
}

static const struct {
    const char *name;
    long (*make)(const char *);
} ATTEMPTS[] = {
    {"mount-tmpfs", mount_tmpfs}, {"mount-bind", mount_bind}, {"mount-writable", mount_writable},
    {"mount-shared", mount_shared}, {"unmount", unmount}, {"pivot", pivot}, {"leave", leave}, {"enter", enter},
    {"clone", clone_into}, {"call", call}, {"call32", call32}, {"signal", signal_to}, {"attach", attach},
    {"seize", seize}, {"pidfd", pidfd}, {"slow-down", slow_down}, {"read-process", read_process},
    {"write-process", write_process}, {"limit-process", limit_process}, {"pin-process", pin_process},
    {"open-write", open_write}, {"open-read", open_read}, {"read-link", read_link}, {"mkdir", make_directory},
    {"read", read_file}, {"device-in", device_in}, {"link", hard_link}, {"climb", climb},
    {"chroot-twice", chroot_twice}, {"by-other-roots", by_other_roots}, {"descriptors", descriptors},
    {"directory", directory}, {"gain", gain_capability}, {"ambient", ambient}, {"file-capability", file_capability},
    {"held-besides", held_besides}, {"raise-limit", raise_limit}, {"real-time", real_time},
    {"hurry", hurry}, {"set-clock", set_clock}, {"tune-clock", tune_clock}, {"set-name", set_name},
    {"set-domain", set_domain}, {"kernel-log", kernel_log}, {"interface-flags", interface_flags}, {"key-add", key_add},
    {"key-request", key_request}, {"key-control", key_control}, {"bpf", load_bpf}, {"events", watch_events},
    {"ring", ring}, {"page-faults", page_faults}, {"by-handle", by_handle}, {"persona", persona}, {"family", family},
    {"family-packets", family_packets}, {"connect-port", connect_port}, {"connect-abstract", connect_abstract},
};

static const char *name_of(long error) {
    static const struct { int number; const char *name; } NAMES[] = {
        {EPERM, "EPERM"}, {ENOENT, "ENOENT"}, {ESRCH, "ESRCH"}, {EIO, "EIO"}, {ENXIO, "ENXIO"}, {EBADF, "EBADF"},
        {EACCES, "EACCES"}, {EFAULT, "EFAULT"}, {EBUSY, "EBUSY"}, {EEXIST, "EEXIST"}, {EXDEV, "EXDEV"},
        {ENODEV, "ENODEV"}, {ENOTDIR, "ENOTDIR"}, {EINVAL, "EINVAL"}, {ETXTBSY, "ETXTBSY"}, {EROFS, "EROFS"},
        {ENOSYS, "ENOSYS"}, {ELOOP, "ELOOP"}, {EOPNOTSUPP, "EOPNOTSUPP"}, {ECONNREFUSED, "ECONNREFUSED"},
        {ENETUNREACH, "ENETUNREACH"}, {EAFNOSUPPORT, "EAFNOSUPPORT"}, {EPROTONOSUPPORT, "EPROTONOSUPPORT"},
        {ENODATA, "ENODATA"}, {ENOMEM, "ENOMEM"}, {EAGAIN, "EAGAIN"}, {ENAMETOOLONG, "ENAMETOOLONG"},
        {ECHILD, "ECHILD"}, {EOVERFLOW, "EOVERFLOW"}, {ESTALE, "ESTALE"}, {ENOTSOCK, "ENOTSOCK"},
    };
    static char other[32];
    if (error == 0) return "done";
    if (error == NOTHING) return "nothing";
    for (size_t n = 0; n < sizeof NAMES / sizeof *NAMES; n++)
        if (NAMES[n].number == error) return NAMES[n].name;
    snprintf(other, sizeof other, "error-%ld", error);
    return other;
}

static long attempt(const char *name, size_t length, const char *value) {
    for (size_t n = 0; n < sizeof ATTEMPTS / sizeof *ATTEMPTS; n++)
        if (strlen(ATTEMPTS[n].name) == length && strncmp(ATTEMPTS[n].name, name, length) == 0)
            return ATTEMPTS[n].make(value);
    fprintf(stderr, "no attempt %s\n", name);
    exit(99);
}

int main(int count, char **words) {
    int at = 1;
    /* `as=UID` in front: what follows is tried as that user, whose parent is still who started it. */
    if (count > 1 && strncmp(words[1], "as=", 3) == 0) {
        uid_t user = (uid_t)number(words[1] + 3);
        if (setgroups(0, NULL) < 0 || setgid(user) < 0 || setuid(user) < 0) {
            perror("becoming that user");
            return 98;
        }
        at = 2;
    }
    for (; at < count; at++) {
        const char *sign = strchr(words[at], '=');
        size_t length = sign ? (size_t)(sign - words[at]) : strlen(words[at]);
        int ends[2], status;
        long said = 0;
        if (pipe2(ends, O_CLOEXEC) < 0) return 97;
        pid_t pid = fork();
        if (pid < 0) return 96;
        if (pid == 0) {
            close(ends[0]);
            end_of_pipe = ends[1];
            said = attempt(words[at], length, sign ? sign + 1 : NULL);
            if (write(end_of_pipe, &said, sizeof said) < 0) _exit(95);
            _exit(0);
        }
        close(ends[1]);
        ssize_t heard = read(ends[0], &said, sizeof said);
        close(ends[0]);
        if (waitpid(pid, &status, 0) < 0) return 94;
        if (WIFSIGNALED(status))
            printf("%s signal-%d\n", words[at], WTERMSIG(status));
        else if (WIFEXITED(status) && WEXITSTATUS(status) == 99)
            return 99;
        else
            /* A program that the attempt became has closed the pipe. */
            printf("%s %s\n", words[at], heard == (ssize_t)sizeof said ? name_of(said) : "became");
        fflush(stdout);
    }
    return 0;
}
