/* Records writes and syncs, a line each with the file's name, in the file named by RECORDED_DISK;
   while the file named by KILLING_DISK exists, the process is killed instead of a sync. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void record(const char *what, int fd) {
    const char *to = getenv("RECORDED_DISK");
    if (!to) return;
    char link[64], path[4096], line[4200];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return;
    path[length] = 0;
    int size = snprintf(line, sizeof line, "%s %s\n", what, path);
    int log = open(to, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (write(log, line, size) != size) abort();
    close(log);
}

static int sync_file(const char *name, int fd) {
    const char *trigger = getenv("KILLING_DISK");
    if (trigger && access(trigger, F_OK) == 0) kill(getpid(), SIGKILL);
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    int result = real(fd);
    record(result == 0 ? "sync" : "failed-sync", fd);
    return result;
}

int fdatasync(int fd) { return sync_file("fdatasync", fd); }
int fsync(int fd) { return sync_file("fsync", fd); }

static ssize_t write_file(const char *name, int fd, const void *data, size_t size, off_t offset) {
    ssize_t (*real)(int, const void *, size_t, off_t) =
        (ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, name);
    record("write", fd);
    return real(fd, data, size, offset);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    return write_file("pwrite", fd, data, size, offset);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset) {
    return write_file("pwrite64", fd, data, size, offset);
}
