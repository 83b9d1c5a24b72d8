/* Lets user-mode Linux up to 6.1 run on newer processors: preloaded into its kernel.

   It saves the registers that processors had in its day, up to AVX-512's. Linux takes them back only
   as many as this processor has, and says EFAULT otherwise; those that are left out, AMX's, have
   to be asked for by a program, and none does. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

#define XSAVE_LEAF 13

static long (*real_ptrace)(int, pid_t, void *, void *);
static char registers[1 << 16];
static unsigned registers_size;

__attribute__((constructor)) static void begin(void) {
    unsigned b, c, d;
    real_ptrace = dlsym(RTLD_NEXT, "ptrace");
    if (!__get_cpuid_count(XSAVE_LEAF, 0, &registers_size, &b, &c, &d)) registers_size = 0;
    else registers_size = c < sizeof registers ? b : 0;
}

long ptrace(enum __ptrace_request request, ...) {
    va_list more;
    va_start(more, request);
    pid_t process = va_arg(more, pid_t);
    void *kind = va_arg(more, void *), *data = va_arg(more, void *);
    va_end(more);
    struct iovec *saved = data, whole = {registers, registers_size};
    if (request == PTRACE_SETREGSET && kind == (void *)NT_X86_XSTATE &&
        saved->iov_len < registers_size) {
        memcpy(registers, saved->iov_base, saved->iov_len);
        return real_ptrace(request, process, kind, &whole);
    }
    return real_ptrace(request, process, kind, data);
}
