/* Logs every change to the files of one folder, and every message sent, in one order and with its
   content; and makes one call fail, or kills the process before it.

   LOGGED_DISK    the log, to which records are appended (see disk_log.py); without it there is none
   LOGGED_FOLDER  the folder, without links in its path; its subfolders are left alone. It may be
                  relative, for processes that name its files so
   DISK_FAULT     a file; while it holds "ACTION CALL NUMBER PROCESS", that call fails: the NUMBERth
                  from then on, of that process, or of any if PROCESS is 0. CALL is a name below, or
                  "change" for each that changes the disk. ACTION is an errno, "kill", or "short" (a
                  write of half the bytes). The file DISK_FAULT with ".fired" is made when it
                  happens, and then it does not happen again.

   A lock is held over a change and its record, across processes, so that the log's order is the
   disk's. A sync has two records, as what is written meanwhile may or may not be covered by it. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define DESCRIPTORS 65536
enum { IGNORED, LOGGED, SHARED };

struct __attribute__((packed)) record {
    uint32_t size; /* of what follows */
    char kind;
    uint32_t process;
    uint64_t file; /* its inode; a socket's descriptor */
    uint64_t offset;
};

static struct { char kind; ino_t inode; } opened[DESCRIPTORS];
static const char *folder, *fault_path;
static size_t folder_length;
static int log_fd = -1;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static uint64_t syncs;
static char fault_action[16], fault_call[16];
static int fault_number, fault_seen, fault_process;

#define REAL(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))

static void lock(void) {
    pthread_mutex_lock(&mutex);
    while (log_fd >= 0 && flock(log_fd, LOCK_EX) && errno == EINTR) {}
}

static void unlock(void) {
    if (log_fd >= 0) flock(log_fd, LOCK_UN);
    pthread_mutex_unlock(&mutex);
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("LOGGED_DISK");
    /* Copies: PostgreSQL writes its title over its environment. */
    folder = getenv("LOGGED_FOLDER") ? strdup(getenv("LOGGED_FOLDER")) : 0;
    fault_path = getenv("DISK_FAULT") ? strdup(getenv("DISK_FAULT")) : 0;
    if (!folder) abort();
    folder_length = strlen(folder);
    if (!path) return;
    log_fd = REAL(open)(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    /* Out of the way of a process that expects the lowest free descriptor. */
    int high = fcntl(log_fd, F_DUPFD_CLOEXEC, 1000);
    if (high < 0) abort();
    REAL(close)(log_fd);
    log_fd = high;
}

static void record(char kind, uint64_t file, uint64_t offset, const void *data, size_t size) {
    if (log_fd < 0) return;
    struct record head = {size, kind, getpid(), file, offset};
    struct iovec parts[] = {{&head, sizeof head}, {(void *)data, size}};
    if (writev(log_fd, parts, 2) != (ssize_t)(sizeof head + size)) abort();
}

/* 0, or the errno with which a call is to fail; -1 for a short write. */
static int fault(const char *call, int changes) {
    int result = 0;
    if (!fault_path) return 0;
    lock();
    if (!fault_number && access(fault_path, F_OK) == 0) {
        FILE *file = fopen(fault_path, "r");
        if (!file || fscanf(file, "%15s %15s %d %d", fault_action, fault_call, &fault_number,
                            &fault_process) != 4)
            fault_number = 0;
        if (file) fclose(file);
        if (fault_process && fault_process != getpid()) fault_number = 0;
        fault_seen = 0;
    }
    int meant = !strcmp(fault_call, call) || (changes && !strcmp(fault_call, "change"));
    if (fault_number && meant && ++fault_seen == fault_number) {
        char fired[4096];
        snprintf(fired, sizeof fired, "%s.fired", fault_path);
        int first = REAL(open)(fired, O_WRONLY | O_CREAT | O_EXCL, 0600);
        if (first >= 0) {
            REAL(close)(first);
            if (!strcmp(fault_action, "kill")) kill(getpid(), SIGKILL);
            result = !strcmp(fault_action, "short") ? -1 : atoi(fault_action);
        }
    }
    unlock();
    return result;
}

#define FAULT(call, changes)                  \
    int failed = fault(call, changes);        \
    if (failed > 0) {                         \
        errno = failed;                       \
        return -1;                            \
    }

static int kind_of(int fd, ino_t *inode) {
    struct stat status;
    if (fd < 0 || fd >= DESCRIPTORS || opened[fd].kind == IGNORED) return IGNORED;
    if (fstat(fd, &status) || status.st_ino != opened[fd].inode) return IGNORED;
    *inode = status.st_ino;
    return opened[fd].kind;
}

static int ends(const char *path, const char *suffix) {
    size_t length = strlen(path), tail = strlen(suffix);
    return length >= tail && !strcmp(path + length - tail, suffix);
}

static int kind_of_path(const char *path) {
    if (strncmp(path, folder, folder_length)) return IGNORED;
    if (!path[folder_length]) return LOGGED;
    if (path[folder_length] != '/' || strchr(path + folder_length + 1, '/')) return IGNORED;
    if (ends(path, "-shm")) return SHARED;
    return ends(path, ".lock") ? IGNORED : LOGGED;
}

static int open_file(const char *call, int at, const char *path, int flags, mode_t mode) {
    int kind = kind_of_path(path);
    if (kind != IGNORED) {
        FAULT(call, 0)
        lock();
    }
    int fd = REAL(openat)(at, path, flags, mode);
    if (fd >= 0 && fd < DESCRIPTORS) {
        struct stat status;
        opened[fd].kind = kind;
        if (kind != IGNORED) {
            fstat(fd, &status);
            opened[fd].inode = status.st_ino;
        }
        if (kind == LOGGED) {
            record(S_ISDIR(status.st_mode) ? 'd' : 'o', status.st_ino, 0, path, strlen(path));
            if (flags & O_TRUNC) record('t', status.st_ino, 0, 0, 0);
        }
    }
    if (kind != IGNORED) unlock();
    return fd;
}

#define MODE                             \
    mode_t mode = 0;                     \
    if (flags & (O_CREAT | O_TMPFILE)) { \
        va_list more;                    \
        va_start(more, flags);           \
        mode = va_arg(more, mode_t);     \
        va_end(more);                    \
    }
int open(const char *path, int flags, ...) { MODE return open_file("open", AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return open_file("open", AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE return open_file("open", at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE return open_file("open", at, path, flags, mode); }

int close(int fd) {
    if (log_fd >= 0 && fd == log_fd) return 0; /* the interpreter closes what it does not know, after a fork */
    if (fd >= 0 && fd < DESCRIPTORS) opened[fd].kind = IGNORED;
    return REAL(close)(fd);
}

static ssize_t write_at(const char *call, int fd, const void *data, size_t size, off_t at) {
    ino_t inode;
    if (kind_of(fd, &inode) != LOGGED) return at < 0 ? REAL(write)(fd, data, size) : REAL(pwrite)(fd, data, size, at);
    FAULT(call, 1)
    if (failed < 0) size /= 2;
    lock();
    off_t from = at < 0 ? lseek(fd, 0, SEEK_CUR) : at;
    ssize_t done = at < 0 ? REAL(write)(fd, data, size) : REAL(pwrite)(fd, data, size, at);
    int error = errno;
    if (done > 0) record('w', inode, from, data, done);
    unlock();
    errno = error;
    return done;
}

ssize_t write(int fd, const void *data, size_t size) { return write_at("write", fd, data, size, -1); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return write_at("pwrite", fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { return write_at("pwrite", fd, data, size, at); }

static ssize_t read_at(int fd, void *data, size_t size, off_t at) {
    ino_t inode;
    if (kind_of(fd, &inode) == LOGGED) {
        FAULT("pread", 0)
    }
    return REAL(pread)(fd, data, size, at);
}

ssize_t pread(int fd, void *data, size_t size, off_t at) { return read_at(fd, data, size, at); }
ssize_t pread64(int fd, void *data, size_t size, off64_t at) { return read_at(fd, data, size, at); }

static int truncate_file(int fd, off_t size) {
    ino_t inode;
    if (kind_of(fd, &inode) != LOGGED) return REAL(ftruncate)(fd, size);
    FAULT("ftruncate", 1)
    lock();
    int done = REAL(ftruncate)(fd, size);
    if (!done) record('t', inode, size, 0, 0);
    unlock();
    return done;
}

int ftruncate(int fd, off_t size) { return truncate_file(fd, size); }
int ftruncate64(int fd, off64_t size) { return truncate_file(fd, size); }

static int sync_file(const char *call, int fd) {
    ino_t inode;
    struct stat status;
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, call);
    if (kind_of(fd, &inode) != LOGGED) return real(fd);
    int of_folder = !fstat(fd, &status) && S_ISDIR(status.st_mode);
    int failed = fault(of_folder ? "sync_folder" : "sync", 1);
    lock();
    uint64_t number = ++syncs;
    record('b', inode, number, 0, 0);
    unlock();
    int done = failed > 0 ? -1 : real(fd);
    int error = failed > 0 ? failed : errno;
    lock();
    record(done ? 'f' : 'e', inode, number, 0, 0);
    unlock();
    errno = error;
    return done;
}

int fsync(int fd) { return sync_file("fsync", fd); }
int fdatasync(int fd) { return sync_file("fdatasync", fd); }

int unlink(const char *path) {
    if (kind_of_path(path) != LOGGED) return REAL(unlink)(path);
    FAULT("unlink", 1)
    lock();
    int done = REAL(unlink)(path), error = errno;
    if (!done) record('u', 0, 0, path, strlen(path));
    unlock();
    errno = error;
    return done;
}

int rename(const char *from, const char *to) {
    if (kind_of_path(from) != LOGGED && kind_of_path(to) != LOGGED) return REAL(rename)(from, to);
    FAULT("rename", 1)
    char both[8192];
    int size = snprintf(both, sizeof both, "%s%c%s", from, 0, to);
    lock();
    int done = REAL(rename)(from, to), error = errno;
    if (!done) record('r', 0, 0, both, size);
    unlock();
    errno = error;
    return done;
}

static void *map_file(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
    ino_t inode;
    if (fd >= 0 && kind_of(fd, &inode) == SHARED) {
        int failed = fault("mmap", 0);
        if (failed > 0) {
            errno = failed;
            return MAP_FAILED;
        }
    }
    return REAL(mmap)(at, size, protection, flags, fd, offset);
}

void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset) {
    return map_file(at, size, protection, flags, fd, offset);
}
void *mmap64(void *at, size_t size, int protection, int flags, int fd, off64_t offset) {
    return map_file(at, size, protection, flags, fd, offset);
}

ssize_t send(int fd, const void *data, size_t size, int flags) {
    FAULT("send", 0)
    return REAL(send)(fd, data, size, flags);
}

ssize_t recv(int fd, void *data, size_t size, int flags) {
    FAULT("recv", 0)
    return REAL(recv)(fd, data, size, flags);
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags) {
    FAULT("recvmsg", 0)
    return REAL(recvmsg)(fd, message, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    FAULT("sendmsg", 0)
    if (log_fd < 0) return REAL(sendmsg)(fd, message, flags);
    char data[1 << 16];
    size_t size = 0;
    for (size_t i = 0; i < message->msg_iovlen; ++i) {
        size_t part = message->msg_iov[i].iov_len;
        if (part > sizeof data - size) part = sizeof data - size;
        memcpy(data + size, message->msg_iov[i].iov_base, part);
        size += part;
    }
    lock();
    record('s', fd, 0, data, size);
    unlock();
    return REAL(sendmsg)(fd, message, flags);
}
