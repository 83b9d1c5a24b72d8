/* Kills the process at a change to the disk: at the one whose number is in CUTTING_DISK, before it
   is made. Without a number, writes how many there were to the file named by COUNTING_DISK. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

static int changes;

static void change(void) {
    const char *at = getenv("CUTTING_DISK");
    ++changes;
    if (at && atoi(at) == changes) kill(getpid(), SIGKILL);
}

__attribute__((destructor)) static void count(void) {
    const char *to = getenv("COUNTING_DISK");
    FILE *file = to ? fopen(to, "w") : 0;
    if (!file) return;
    fprintf(file, "%d", changes);
    fclose(file);
}

#define CUT(type, name, parameters, ...)                                     \
    type name parameters {                                                   \
        change();                                                            \
        type(*real) parameters = (type(*) parameters)dlsym(RTLD_NEXT, #name); \
        return real(__VA_ARGS__);                                            \
    }

CUT(int, fsync, (int fd), fd)
CUT(int, fdatasync, (int fd), fd)
CUT(int, rename, (const char *from, const char *to), from, to)
CUT(int, unlink, (const char *path), path)
CUT(int, ftruncate, (int fd, off_t size), fd, size)
CUT(int, ftruncate64, (int fd, off64_t size), fd, size)
CUT(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t at), fd, data, size, at)
CUT(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), fd, data, size, at)
