// Looks at another process, or makes memory executable, as no tool of macOS does without set-uid or a service.
#include <libproc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysctl.h>

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    int pid = atoi(argv[2]);
    if (strcmp(argv[1], "procargs") == 0) {
        static char args[1 << 20];
        size_t size = sizeof args;
        int name[] = {CTL_KERN, KERN_PROCARGS2, pid};
        return sysctl(name, 3, args, &size, NULL, 0) == 0 && size > sizeof(int) ? 0 : 1;
    }
    if (strcmp(argv[1], "pidinfo") == 0) {
        struct proc_bsdinfo info;
        return proc_pidinfo(pid, PROC_PIDTBSDINFO, 0, &info, sizeof info) == (int)sizeof info ? 0 : 1;
    }
    if (strcmp(argv[1], "jit") == 0) {
        void *page = mmap(NULL, 16384, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_ANON | MAP_PRIVATE | MAP_JIT, -1, 0);
        return page == MAP_FAILED ? 1 : 0;
    }
    return 2;
}
