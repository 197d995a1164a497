/* mergeable: asks the kernel to merge its memory, and keeps it until it is killed.
 *
 *   mergeable       24 MiB: 8 of equal pages, 8 of zeros, 8 of pages like no other
 *
 * Prints the pid of the process that holds the memory when that is resident. Freestanding, built
 * by tcc, as launchers/guest/hold.c is; for the guests that tests/rig/record.py boots.
 */

typedef unsigned long word;

enum { WRITE = 1, MMAP = 9, MADVISE = 28, NANOSLEEP = 35, GETPID = 39 };
enum { MERGEABLE = 12 }; /* madvise(2): MADV_MERGEABLE */

#define PAGE 4096UL
#define PAGES 6144UL

long call(long number, ...);

__asm__(".globl _start\n"
        "_start: and $-16, %rsp\n"
        "  call start\n"
        ".globl call\n" /* the kernel's calling convention: syscall(2) */
        "call: mov %rdi, %rax\n"
        "  mov %rsi, %rdi\n"
        "  mov %rdx, %rsi\n"
        "  mov %rcx, %rdx\n"
        "  mov %r8, %r10\n"
        "  mov %r9, %r8\n"
        "  mov 8(%rsp), %r9\n"
        "  syscall\n"
        "  ret\n");

static void say(word value)
{
    char text[24];
    int at = sizeof text;
    text[--at] = '\n';
    do
        text[--at] = '0' + value % 10;
    while (value /= 10);
    call(WRITE, 1L, text + at, sizeof text - at);
}

void start(void)
{
    long day[2];
    word page;
    /* PROT_READ | PROT_WRITE; MAP_PRIVATE | MAP_ANONYMOUS */
    char *memory = (char *)call(MMAP, 0L, PAGES * PAGE, 3L, 0x22L, -1L, 0L);
    call(MADVISE, memory, PAGES * PAGE, (long)MERGEABLE);
    for (page = 0; page < PAGES; page++)
        *(word *)(memory + page * PAGE) = page % 3 == 0 ? 42 : page % 3 == 1 ? 0 : page;
    say(call(GETPID));
    day[0] = 86400;
    day[1] = 0;
    for (;;)
        call(NANOSLEEP, day, 0L);
}
