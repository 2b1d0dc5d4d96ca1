/* Stands in an image in the place of the loader that memobuild's own program asks for. Started in that program's name, it
 * asks to write to it, writes nothing, and ends with 100 if it would have been let. A program that is being executed can't
 * be written to by most kernels, and could be later: it ends with the number of the error that then would stop it, or with
 * 101. Needs no C library: it is what would find one. */
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

static long call(long number, long a, long b, long c) {
#if defined(__x86_64__)
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return result;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
#endif
}

void _start(void) {
    long file = call(SYS_openat, AT_FDCWD, (long)"/proc/self/exe", O_WRONLY | O_CLOEXEC);
    long later = call(SYS_faccessat, AT_FDCWD, (long)"/proc/self/exe", W_OK);
    for (;;) call(SYS_exit_group, file >= 0 ? 100 : later < 0 ? -later : 101, 0, 0);
}
